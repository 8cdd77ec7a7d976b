"""The difference of two configurations, as people see it."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import inspect

from rtpipe import Plugin, Secret
from rtpipe.chain.instances import StageSpec
from rtpipe.daemon import changes, config_files
from rtpipe.daemon.config import Config
from rtpipe.daemon.config_files import Document, Sources
from rtpipe.daemon.diff import MOST_LINES, Side, lines
from tests.refresh import own_plugins


class Door(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    token: Secret | None = None


class Options(msgspec.Struct, frozen=True, kw_only=True):
    budget: int = 5
    words: str | None = None
    headers: dict[str, str | Secret] = {}
    doors: tuple[Door, ...] = ()
    kinds: frozenset[str] = frozenset({"session"})
    schema: dict[str, Any] = {}


class Optional(Plugin[Options, None]):
    pass


def spec(plugin_type, name="mine"):
    return StageSpec(name, name, plugin_type, None)


def side(text, *specs):
    return Side(Sources([config_files.parse(Path("rtpipe.toml"), text)]), specs or (spec(Optional),))


def differ(before, after):
    old, new = side(before), side(after)
    return lines(changes.changed(old.sources.data, new.sources.data), old, new)


def test_values_before_and_after():
    before = 'chain = ["a", "b"]\n[limits]\nmax_sessions = 7\n[plugins.mine]\nbudget = 6\nwords = "a\\nb"'
    after = 'chain = ["b", "c"]\nwatch = true\n[plugins.mine]\nbudget = 8\n'
    assert differ(before, after) == [
        'chain: added "c"; removed "a"',
        "limits.max_sessions: 7 -> 1000",
        "plugins.mine.budget: 6 -> 8",
        r'plugins.mine.words: "a\nb" -> unset',
        "watch: false -> true",
    ]
    assert differ("[plugins.mine]\nbudget = 5", "") == ["plugins.mine.budget: changed 5"]
    assert differ('chain = ["a", "b"]', 'chain = ["b", "a"]') == ["chain: in another order"]


def test_the_keys_that_every_stage_has():
    assert differ("", '[plugins.mine]\nenabled = false\non_error = "drop"') == [
        "plugins.mine.enabled: true -> false",
        'plugins.mine.on_error: unset -> "drop"',
    ]


def test_sets_are_told_as_what_came_and_went():
    assert differ("", '[plugins.mine]\nkinds = ["tap", "session"]') == ['plugins.mine.kinds: added "tap"']


def test_a_text_that_is_long_is_cut_and_its_length_said():
    (line,) = differ("", f'[plugins.mine]\nwords = "{"x" * 500}"')
    assert line == f'plugins.mine.words: unset -> "{"x" * 59}… (502 characters)'


@pytest.mark.parametrize(
    ("before", "after", "line"),
    [
        (
            '[[upstream]]\napi_key = { env = "A_NAME" }',
            '[[upstream]]\napi_key = { env = "ANOTHER" }',
            "upstream[0].api_key.env: changed (secret)",
        ),
        (
            "[alerts]",
            '[alerts]\nwebhook = { file = "/a" }',
            "alerts.webhook.file: unset -> (secret)",
        ),
        (
            '[plugins.mine]\nheaders = { a = "Bearer 1" }',
            "[plugins.mine]\nheaders = {}",
            "plugins.mine.headers.a: (secret) -> unset",
        ),
        (
            "",
            '[[plugins.mine.doors]]\nname = "b"\ntoken = { env = "A_NAME" }',
            'plugins.mine.doors: added { name = "b", token = (secret) }',
        ),
        (
            "",
            '[plugins.mine.schema]\ntype = "object"',
            "plugins.mine.schema.type: unset -> (not shown)",
        ),
        ("", '[plugins.other]\nword = "mine"', "plugins.other.word: unset -> (not shown)"),
        (
            "",
            '[plugins.mine]\nwords = "http://me:mine@host/"',
            'plugins.mine.words: unset -> "http://…@host/"',
        ),
    ],
)
def test_what_may_be_a_secret_is_not_shown(before, after, line):
    assert differ(before, after) == [line]


def test_there_are_not_too_many():
    keys = "\n".join(f'k{i} = "v"' for i in range(MOST_LINES + 3))
    found = differ("", f"[plugins.mine.headers]\n{keys}")
    assert len(found) == MOST_LINES + 1
    assert found[-1] == "and 3 more"


def test_lines_are_printable():
    (line,) = differ("", '[plugins.mine.headers]\n"\\u001b[2J" = "x"')
    assert line.isprintable()


# --- no secret, whatever changes

MARK = "marked-secret"


def raw(info, secretive=False):
    """TOML values that may stand where *info* describes an option; whatever might be a secret is marked."""
    if isinstance(info, inspect.Metadata):
        return raw(info.type, secretive)
    if isinstance(info, inspect.UnionType):
        mixed = any(isinstance(each, inspect.StructType) and each.cls is Secret for each in info.types)
        return st.one_of(raw(each, mixed) for each in info.types if not isinstance(each, inspect.NoneType))
    if isinstance(info, inspect.StructType):
        inner = {
            field.encode_name: st.just(MARK) if info.cls is Secret else raw(field.type)
            for field in info.fields
        }
        return st.fixed_dictionaries({}, optional=inner)
    if isinstance(info, inspect.DictType):
        return st.dictionaries(st.sampled_from(["a", "b c"]), raw(info.value_type), max_size=2)
    if isinstance(info, inspect.TupleType):
        return st.tuples(*map(raw, info.item_types)).map(list)
    if item := getattr(info, "item_type", None):
        return st.lists(raw(item), max_size=2)
    if isinstance(info, inspect.BoolType):
        return st.booleans()
    if isinstance(info, inspect.IntType | inspect.FloatType):
        return st.integers(0, 2)
    if isinstance(info, inspect.LiteralType):
        return st.sampled_from(list(info.values))
    if isinstance(info, inspect.AnyType):
        return st.just(MARK) | st.just([{"x": MARK}])
    assert isinstance(info, inspect.StrType), info
    return st.just(MARK) if secretive else st.sampled_from(["", "x", "y" * 100])


PLUGINS = {**own_plugins(), "mine": Optional}
SPECS = tuple(spec(plugin_type, name) for name, plugin_type in PLUGINS.items())


def whole():
    """A configuration, right or wrong."""
    tables = {name: raw(inspect.type_info(each.config_type)) for name, each in PLUGINS.items()}
    plugins = st.fixed_dictionaries({"unknown": st.just({"x": MARK})}, optional=tables)
    return st.tuples(raw(inspect.type_info(Config)), plugins).map(
        lambda both: {**both[0], "plugins": both[1]}
    )


@settings(max_examples=200, derandomize=True, deadline=None)
@given(before=whole(), after=whole())
def test_no_secret_is_shown_whatever_changes(before, after):
    old, new = (Side(Sources([Document(Path("rtpipe.toml"), "", data)]), SPECS) for data in (before, after))
    different = changes.changed(before, after)
    found = lines(different, old, new)
    assert len(found) == min(len(different), MOST_LINES + 1)
    assert MARK not in "\n".join(found)
