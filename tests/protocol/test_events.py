import base64
import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.realtime import RealtimeErrorEvent, ResponseCreateEvent, SessionUpdateEvent

from rtpipe.protocol import events as ev


def test_error_event_and_back() -> None:
    event = ev.error_event("some_code", "What to do.", param="session.x", event_id="client_1", own_id="rtp_1")
    assert ev.error_of(event) == ("some_code", "client_1", "session.x")
    parsed = RealtimeErrorEvent.model_validate(event, strict=True)
    assert (parsed.event_id, parsed.error.type) == ("rtp_1", "invalid_request_error")
    assert ev.error_of(ev.error_event(None, "x", own_id="rtp_2")) == (None, None, None)


def test_session_update() -> None:
    event = ev.session_update({"instructions": "hi", "model": "m"}, "rtp_1")
    SessionUpdateEvent.model_validate(event, strict=True)
    assert ev.update_of(event) == {"type": "realtime", "instructions": "hi", "model": "m"}
    assert ev.session_of(event) is None
    assert ev.model_of_update(event) == "m"
    bare = ev.without_model(event)
    assert ev.model_of_update(bare) is None
    assert ev.model_of_update(event) == "m"
    assert ev.without_model(bare) is bare
    assert ev.session_update({"type": "transcription"}, "x")["session"] == {"type": "transcription"}


def test_session_of() -> None:
    event = {"type": "session.updated", "event_id": "e", "session": {"id": "s"}}
    assert ev.session_of(event) == {"id": "s"}
    assert ev.update_of(event) is None
    assert ev.session_of(ev.with_session(event, {"id": "t"})) == {"id": "t"}
    assert event["session"] == {"id": "s"}


def test_response_create_and_metadata() -> None:
    assert ev.response_create("rtp_1") == {"type": "response.create", "event_id": "rtp_1"}
    event = ev.response_create("rtp_1", {"a": "1"})
    ResponseCreateEvent.model_validate(event, strict=True)
    more = ev.with_create_metadata(event, {"b": "2"})
    assert ev.response_metadata(more) == {"a": "1", "b": "2"}
    assert ev.response_metadata(event) == {"a": "1"}
    assert ev.response_metadata(ev.without_response_metadata(more, "a")) == {"b": "2"}
    assert ev.without_response_metadata(event, "a")["response"]["metadata"] is None
    assert ev.without_response_metadata(event, "z") is event
    assert ev.with_create_metadata({"type": "response.create", "response": None}, {"a": "1"})["response"] == {
        "metadata": {"a": "1"}
    }


def test_responses_are_found() -> None:
    assert ev.response_id_of({"response_id": "r1"}) == "r1"
    assert ev.response_id_of({"response": {"id": "r2"}}) == "r2"
    assert ev.response_of({"response": {"id": "r2"}}) == {"id": "r2"}
    assert ev.is_out_of_band({"type": "response.create", "response": {"conversation": "none"}})
    assert not ev.is_out_of_band({"type": "response.create", "response": {"conversation": "auto"}})
    assert not ev.is_out_of_band({"type": "response.done", "response": {"conversation": "none"}})


def test_items_are_found() -> None:
    output = {"type": "function_call_output", "id": "i1", "call_id": "c1", "output": ""}
    event = {"type": "conversation.item.create", "item": output, "previous_item_id": "i0"}
    assert ev.item_of(event) == output
    assert ev.item_id_of(event) == "i1"
    assert ev.call_id_of(event) == "c1"
    assert ev.item_ids_named(event) == {"i0"}
    assert ev.item_ids_named({"previous_item_id": "root", "item_id": "i2"}) == {"i2"}
    assert ev.call_id_of({"item": {"type": "message", "call_id": "c1"}}) is None
    assert ev.call_id_of({"type": "response.function_call_arguments.done", "call_id": "c2"}) == "c2"
    reference = {"input": [{"type": "item_reference", "id": "i3"}, {"type": "message", "id": "i4"}, 7]}
    assert ev.item_ids_named({"type": "response.create", "response": reference}) == {"i3"}
    assert ev.item_id_of(ev.with_item_id(event, "i9")) == "i9"
    assert ev.item_id_of(event) == "i1"
    assert ev.with_event_id(event, "e1")["event_id"] == "e1"


junk = st.recursive(
    st.sampled_from([None, 7, "x", [], True]),
    lambda inner: (
        st.dictionaries(
            st.sampled_from(
                ["id", "type", "response", "item", "session", "metadata", "input", "call_id", "output"]
            ),
            inner,
        )
        | st.lists(inner, max_size=2)
    ),
    max_leaves=5,
)
FIELDS = [
    "error",
    "response",
    "item",
    "session",
    "response_id",
    "item_id",
    "call_id",
    "previous_item_id",
    "type",
]


@settings(max_examples=300, derandomize=True, deadline=None)
@given(st.dictionaries(st.sampled_from(FIELDS), junk))
def test_no_shape_makes_a_reader_raise_or_an_event_change(event: dict[str, Any]) -> None:
    before = copy.deepcopy(event)
    for reader in (
        *(ev.error_of, ev.session_of, ev.update_of, ev.model_of_update, ev.without_model, ev.response_of),
        *(
            ev.response_id_of,
            ev.response_metadata,
            ev.is_out_of_band,
            ev.item_of,
            ev.item_id_of,
            ev.call_id_of,
        ),
        ev.item_ids_named,
    ):
        reader(event)  # type: ignore[operator]
    ev.with_create_metadata(event, {"a": "b"})
    ev.without_response_metadata(event, "id")
    ev.with_item_id(event, "i")
    assert event == before


@settings(max_examples=200, derandomize=True, deadline=None)
@given(st.binary(max_size=40), st.booleans(), st.booleans(), st.sampled_from([None, (",", ":")]))
def test_audio_is_counted(
    audio: bytes, padded: bool, slashes: bool, separators: tuple[str, str] | None
) -> None:
    text = base64.b64encode(audio).decode()
    event = {
        "type": "response.output_audio.delta",
        "item_id": "i",
        "delta": text if padded else text.rstrip("="),
    }
    payload = json.dumps({**event, "output_index": 0}, separators=separators).encode()
    if slashes:
        payload = payload.replace(b"/", b"\\/")
    assert ev.audio_delta_bytes(payload) == len(audio)


@pytest.mark.parametrize(
    "payload", [b"", b"{}", b'{"delta":7}', b'{"delta":"', b'{"delta":"AAAA', b'"delta":"="']
)
def test_no_audio(payload: bytes) -> None:
    assert ev.audio_delta_bytes(payload) == 0
