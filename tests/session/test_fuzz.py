"""Known event names over any JSON at all, from both sides: nothing comes out of a pump, the session lives."""

import logging

import msgspec
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from rtpipe import Plugin, on_client, on_server
from rtpipe.protocol.catalogue import CLIENT_TYPES, SERVER_TYPES
from rtpipe.testing import ChainHarness

PROFILE = settings(derandomize=True, max_examples=200, deadline=None, database=None)

IDS = ["i1", "i2", "hidden", "r1", "c1", "rtp_x", ""]
LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 3), st.just(1e300), st.sampled_from(IDS), st.text(max_size=3)
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(
                ["id", "type", "metadata", "output", "rtpipe", "audio", "input", "turn_detection", "a.b"]
            ),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=8,
)
KEYS = [
    "event_id",
    "session",
    "item",
    "item_id",
    "response",
    "response_id",
    "previous_item_id",
    "error",
    "call_id",
    "delta",
    "item.id",
    "response.id",
    "response.output",
    "response.usage",
    "response.metadata",
    "response.input",
    "session.audio",
    "session.model",
    "session.type",
    "session.tools",
    "error.event_id",
    "error.param",
    "error.code",
]
FIELDS = st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=6)


def event_of(kind, fields):
    """An event with dotted keys put in their place."""
    event = {"type": kind}
    for key, value in sorted(fields.items()):
        outer, _, inner = key.partition(".")
        if inner:
            if isinstance(event.setdefault(outer, {}), dict):
                event[outer][inner] = value
        else:
            event[outer] = value
    return event


class Busy(Plugin[None, None]):
    """Uses everything the host keeps books of."""

    on_error = "pass"

    def session_open(self, session):
        session.gate_turns(True)
        session.hide("hidden")

    def configure(self, session, draft):
        draft.set("tools", [*(draft.get("tools") or []), 1])
        draft.remove("instructions")

    @on_client("response.create", "conversation.item.create")
    def client(self, session, event):
        session.send_upstream(event)

    @on_server("conversation.item.added", "response.done")
    def server(self, session, event):
        session.send_upstream(event.replace({**event.data, "type": "conversation.item.delete"}))
        if isinstance(item := event.data.get("item_id"), str) and item:
            session.hide(item)


@PROFILE
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("client"), st.sampled_from(sorted(CLIENT_TYPES)), FIELDS),
            st.tuples(st.just("upstream"), st.sampled_from(sorted(SERVER_TYPES)), FIELDS),
        ),
        min_size=1,
        max_size=12,
    )
)
def test_any_shape_of_any_event(events):
    async def body():
        async with ChainHarness({"busy": Busy}) as chain:
            await chain.upstream.send({"type": "session.created", "session": {"voice": "x"}})
            for end, kind, fields in events:
                connection = (chain.client if end == "client" else chain.upstream).connection
                await connection.send(msgspec.json.encode(event_of(kind, fields)))
            await trio.sleep(1)
            assert chain.session.ending is None, chain.session.ending
            chain.check_fates()

    records = []
    handler = logging.Handler()
    handler.emit = records.append
    logging.getLogger("rtpipe.session").addHandler(handler)
    try:
        trio.run(body, clock=trio.testing.MockClock(autojump_threshold=0))
    finally:
        logging.getLogger("rtpipe.session").removeHandler(handler)
    assert not [record for record in records if record.exc_info]


DEEP = 600
TEXTS = [
    b"",
    b"nonsense",
    b"[]",
    b"7",
    b"{}",
    b"\xff\xfe",
    b'{"type":null}',
    b'{"type":""}',
    b'{"type":[]}',
    b'{"type":"response.done","response":NaN}',
    b'{"type":"error"',
    b'{"previous_item_id":"hidden"}',
    b'{"type":"","previous_item_id":"hidden"}',
    b'{"type":"conversation.item.added","previous_item_id":"hidden"}' * 2,
    b'{"type":"response.done","response":{"id":"r","output":[{"id":"hidden"}],"x":1e999}}',
    b'{"type":"response.done","response":' + b'{"a":' * DEEP + b"1" + b"}" * DEEP + b"}",
    b'{"type":"session.updated","session":' + b'{"a":' * DEEP + b"1" + b"}" * DEEP + b"}",
    b'{"type":"x","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
]


async def test_texts_that_are_no_events(caplog):
    for stages in ({}, {"busy": Busy}):
        async with ChainHarness(stages) as chain:
            for text in TEXTS:
                for end in (chain.upstream, chain.client):
                    await end.send(text)
            assert chain.session.ending is None
            assert not any(b'"hidden"' in payload for payload in chain.client.payloads) or not stages
            chain.check_fates()
    assert "internal error" not in caplog.text
    assert "Traceback" not in caplog.text


async def test_a_fault_of_our_own_ends_one_session_and_not_the_process(caplog, monkeypatch):
    async with ChainHarness({}) as chain:

        def boom(*args):
            raise RuntimeError("a bug")

        monkeypatch.setattr(chain.session.veil, "observe", boom)
        await chain.upstream.send({"type": "error"})
        assert chain.client.closing.code == 1011
    assert "internal error" in caplog.text
