"""Mistakes in plugins and lists are found when the chain is made, and say whose they are."""

import logging

import pluggy
import pytest

from rtpipe import ConfigError, Plugin, on_client, on_server
from rtpipe.chain.compile import Chain, Stage, describe
from rtpipe.protocol.catalogue import DOWNSTREAM, UPSTREAM

hookimpl = pluggy.HookimplMarker("rtpipe")


class FakeHost:
    stage = "fake"


def chain(*stages, **kinds):
    """A chain of (name, plugin type) pairs."""
    return Chain(
        [
            Stage(name, plugin_type(None, FakeHost()), kinds.get(name, name), "close")
            for name, plugin_type in stages
        ]
    )


class Plain(Plugin[None, None]):
    pass


class First(Plugin[None, None]):
    before = ("late",)


class Last(Plugin[None, None]):
    after = ("early",)


@pytest.mark.parametrize(
    ("stages", "names"),
    [
        ([("late", Plain), ("eager", First)], ("eager", "late")),
        ([("lazy", Last), ("early", Plain)], ("lazy", "early")),
        ([("same", Plain), ("same", Plain)], ("same", "twice")),
        ([("client", Plain)], ("client", "no name")),
        ([("host", Plain)], ("host", "no name")),
    ],
)
def test_lists_that_cannot_be(stages, names):
    with pytest.raises(ConfigError) as caught:
        chain(*stages)
    assert all(name in str(caught.value) for name in names)
    assert "\n" not in str(caught.value)


def test_order_facts_speak_of_plugins_and_hold_for_every_stage_of_one():
    chain(("eager", First), ("a", Plain), a="late")
    with pytest.raises(ConfigError, match="eager must come before a"):
        # The second stage of the same plugin stands right; that excuses nothing.
        chain(("a", Plain), ("eager", First), ("b", Plain), a="late", b="late")


class TwoForOneType(Plugin[None, None]):
    @on_client("response.create")
    def one(self, session, event): ...

    @on_client("response.create", "response.cancel")
    def other(self, session, event): ...


class CatchAllAndOne(Plugin[None, None]):
    @on_server()
    def one(self, session, event): ...

    @on_server("error")
    def other(self, session, event): ...


class TryFirst(Plugin[None, None]):
    @hookimpl(tryfirst=True)
    def startup(self): ...


class Wrapper(Plugin[None, None]):
    @hookimpl(wrapper=True)
    def startup(self):
        yield


class Unmarked(Plugin[None, None]):
    def client_event(self, session, event): ...


class WrongArguments(Plugin[None, None]):
    @on_client("response.create")
    def take(self, session, evnt): ...


class WrongArgumentsOfHook(Plugin[None, None]):
    def session_open(self, connection): ...


@pytest.mark.parametrize(
    ("plugin_type", "said"),
    [
        (TwoForOneType, "one and other both handle response.create"),
        (CatchAllAndOne, "one and other both handle error"),
        (TryFirst, "tryfirst is not for plugins"),
        (Wrapper, "wrapper is not for plugins"),
        (Unmarked, "@on_client or @on_server"),
        (WrongArguments, "evnt"),
        (WrongArgumentsOfHook, "connection"),
    ],
)
def test_mistakes_in_a_plugin(plugin_type, said):
    with pytest.raises(ConfigError) as caught:
        chain(("fine", Plain), ("faulty", plugin_type))
    assert "plugin faulty" in str(caught.value)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_hook_is_marked_once_and_with_parentheses():
    with pytest.raises(TypeError, match="twice"):

        class Twice(Plugin[None, None]):
            @on_client("response.create")
            @on_server("response.done")
            def both(self, session, event): ...

    with pytest.raises(TypeError, match="parentheses"):

        class Bare(Plugin[None, None]):
            @on_client
            def all(self, session, event): ...


class Misspelt(Plugin[None, None]):
    @on_client("response.crate")
    def take(self, session, event): ...

    def sesion_open(self, session): ...

    def nothing_of_the_kind(self): ...


def test_what_looks_misspelt_is_warned_of(caplog):
    with caplog.at_level(logging.WARNING, "rtpipe.chain"):
        chain(("odd", Misspelt))
    assert [r.getMessage() for r in caplog.records] == [
        "plugin odd: sesion_open is no hook (did you mean session_open?)",
        "plugin odd: take: 'response.crate' is no known event type (did you mean response.create?)",
    ]


class Properties(Plugin[None, None]):
    @property
    def session_open(self):
        raise AssertionError("looked at")

    @property
    def anything(self):
        raise AssertionError("looked at")


def test_properties_are_left_alone():
    assert chain(("props", Properties)).calls("session_open") == ()


class Some(Plugin[None, None]):
    @on_client("response.create")
    def one(self, session, event): ...


class All(Plugin[None, None]):
    @on_client()
    def all(self, session, event): ...


def test_links_stand_in_walking_order():
    made = chain(("a", Some), ("b", Plain), ("c", All))
    links = made.links(UPSTREAM, "response.create")
    assert [link and link.stage.name for link in links] == ["a", None, "c"]
    assert [link and link.stage.name for link in made.links(UPSTREAM, "new.type")] == [None, None, "c"]
    assert made.links(DOWNSTREAM, "error") == ()
    assert [made.step_of(s, DOWNSTREAM) for s in "abc"] == [2, 1, 0]
    assert describe(made) == [(UPSTREAM, "response.create", ["a", "c"]), (UPSTREAM, "*", ["c"])]
