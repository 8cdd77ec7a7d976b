"""Lines of keys: what the scanner says against where they were written."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtpipe.daemon.toml_positions import positions

TEXT = '''\
# [not.a.table]
top = 1
"quoted \\"key\\"" = 2   # comment = 3
a.b . 'c d' = """
x = 1
[y]
""""
[later.child]
one = [
  1, # two
  { in = "}", more = [3,
    4] },
]
[later]
two = 1979-05-27 07:32:00
[[many]]
name = '']'
[many.sub]
k = 1
[[many]]
name = \'\'\'
[[many]]\'\'\'
[[many.inner]]
[[many.inner]]
z = "#"
'''.replace("name = '']'", "name = ']'")


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_everything_is_on_its_line(newline):
    tomllib.loads(TEXT)
    lines = positions(TEXT.replace("\n", newline))
    assert lines == {
        (): 1,
        ("top",): 2,
        ('quoted "key"',): 3,
        ("a",): 4,
        ("a", "b"): 4,
        ("a", "b", "c d"): 4,
        ("later",): 14,
        ("later", "child"): 8,
        ("later", "child", "one"): 9,
        ("later", "child", "one", 0): 10,
        ("later", "child", "one", 1): 11,
        ("later", "child", "one", 1, "in"): 11,
        ("later", "child", "one", 1, "more"): 11,
        ("later", "child", "one", 1, "more", 0): 11,
        ("later", "child", "one", 1, "more", 1): 12,
        ("later", "two"): 15,
        ("many",): 16,
        ("many", 0): 16,
        ("many", 0, "name"): 17,
        ("many", 0, "sub"): 18,
        ("many", 0, "sub", "k"): 19,
        ("many", 1): 20,
        ("many", 1, "name"): 21,
        ("many", 1, "inner"): 23,
        ("many", 1, "inner", 0): 23,
        ("many", 1, "inner", 1): 24,
        ("many", 1, "inner", 1, "z"): 25,
    }


values = st.sampled_from(
    ["1", '"#["', "'}'", '"""\n\\""""', "'''\n]'''", "[1,\n 2]", '{ a = "," }', "[]", "{}", "1e3", "true"]
)
keys = st.sampled_from(["a", "b", '"a.b"', "'['", "c.d"])


@given(st.lists(st.tuples(st.sampled_from(["", "[t]", "[[m]]", "[t.u]"]), keys, values), max_size=8))
def test_the_scanner_finds_exactly_the_keys_that_are_there(lines):
    text = "".join(f"{header}\n{key} = {value} # c\n" for header, key, value in lines)
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    assert set(positions(text)) == set(_paths(data))


def _paths(value, path=()):
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from _paths(item, (*path, key))
