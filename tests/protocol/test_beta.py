"""The beta dialect: there and back, and every server event a beta client may be sent is one it knows."""

from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.beta.realtime import RealtimeServerEvent
from pydantic import TypeAdapter

from rtpipe.protocol import beta
from rtpipe.protocol.catalogue import SERVER_TYPES

BETA = TypeAdapter(RealtimeServerEvent)
BETA_TYPES = {
    get_args(member.model_fields["type"].annotation)[0]
    for member in get_args(get_args(RealtimeServerEvent)[0])
}

# --- session objects ----------------------------------------------------------------------------------------

words = st.text('aé"\\', max_size=5)
formats = st.sampled_from(
    [
        {"type": "audio/pcm", "rate": 24000},
        {"type": "audio/pcmu"},
        {"type": "audio/pcma"},
        {"type": "audio/new"},
    ]
)
detectors = st.none() | st.fixed_dictionaries(
    {"type": st.sampled_from(["server_vad", "semantic_vad"])}, optional={"create_response": st.booleans()}
)
ga_leaves = {
    "audio.input.format": formats,
    "audio.input.transcription": st.none() | st.fixed_dictionaries({"model": words}),
    "audio.input.noise_reduction": st.none() | st.just({"type": "near_field"}),
    "audio.input.turn_detection": detectors,
    "audio.input.unheard_of": words,
    "audio.output.format": formats,
    "audio.output.voice": words | st.just({"id": "voice_1"}),
    "audio.output.speed": st.floats(0.25, 1.5),
    "output_modalities": st.sampled_from([["text"], ["audio"]]),
    "max_output_tokens": st.just("inf") | st.integers(1, 4096),
    "instructions": words,
    "tools": st.just([{"type": "function", "name": "dice"}]),
    "tool_choice": words,
    "id": words,
    "truncation": words,
}


@st.composite
def ga_sessions(draw):
    session = {"type": "realtime"}
    for path in draw(st.sets(st.sampled_from(sorted(ga_leaves)))):
        *containers, key = path.split(".")
        place: Any = session
        for each in containers:
            place = place.setdefault(each, {})
        place[key] = draw(ga_leaves[path])
    return session


@given(ga_sessions())
def test_a_session_comes_back_as_it_was(session):
    before = msgspec.json.encode(session)
    there = beta.session_from_ga(session)
    assert beta.session_to_ga(there) == session
    assert msgspec.json.encode(session) == before
    assert not {"type", "output_modalities", "max_output_tokens"} & set(there)


BETA_SESSION = {
    "modalities": ["audio", "text"],
    "instructions": "Be brief.",
    "voice": "verse",
    "speed": 1.25,
    "input_audio_format": "g711_ulaw",
    "output_audio_format": "g711_alaw",
    "input_audio_transcription": {"model": "whisper-1"},
    "input_audio_noise_reduction": None,
    "turn_detection": {"type": "server_vad", "create_response": False},
    "tools": [{"type": "function", "name": "dice", "parameters": {}}],
    "tool_choice": "auto",
    "max_response_output_tokens": 100,
    "tracing": "auto",
}
GA_SESSION = {
    "type": "realtime",
    "output_modalities": ["audio"],
    "instructions": "Be brief.",
    "audio": {
        "input": {
            "format": {"type": "audio/pcmu"},
            "transcription": {"model": "whisper-1"},
            "noise_reduction": None,
            "turn_detection": {"type": "server_vad", "create_response": False},
        },
        "output": {"voice": "verse", "speed": 1.25, "format": {"type": "audio/pcma"}},
    },
    "tools": [{"type": "function", "name": "dice", "parameters": {}}],
    "tool_choice": "auto",
    "max_output_tokens": 100,
    "tracing": "auto",
}


def to_ga(event):
    return msgspec.json.decode(beta.to_ga(msgspec.json.encode(event)))


def from_ga(event):
    payload = beta.from_ga(msgspec.json.encode(event))
    return None if payload is None else msgspec.json.decode(payload)


def test_a_whole_session():
    update = {"type": "session.update", "event_id": "e", "session": {**BETA_SESSION, "temperature": 0.8}}
    assert to_ga(update) == {"type": "session.update", "event_id": "e", "session": GA_SESSION}
    assert beta.session_from_ga(GA_SESSION) == BETA_SESSION


@given(st.sets(st.sampled_from(sorted(BETA_SESSION))))
def test_a_beta_session_comes_back_as_it_was(keys):
    session = {key: BETA_SESSION[key] for key in keys}
    assert beta.session_from_ga(beta.session_to_ga(session)) == session


def test_a_transcription_session():
    session = {
        "input_audio_format": "pcm16",
        "input_audio_transcription": {"model": "gpt-4o-transcribe"},
        "modalities": ["text"],
        "include": ["item.input_audio_transcription.logprobs"],
    }
    update = to_ga({"type": "transcription_session.update", "session": session})
    assert update["type"] == "session.update"
    assert update["session"] == {
        "type": "transcription",
        "audio": {
            "input": {
                "format": {"type": "audio/pcm", "rate": 24000},
                "transcription": {"model": "gpt-4o-transcribe"},
            }
        },
        "include": ["item.input_audio_transcription.logprobs"],
    }
    told = from_ga({"type": "session.updated", "event_id": "e", "session": update["session"]})
    del session["modalities"]
    assert told == {"type": "transcription_session.updated", "event_id": "e", "session": session}
    assert from_ga({"type": "session.created", "session": update["session"]})["type"] == (
        "transcription_session.created"
    )


# --- client events ------------------------------------------------------------------------------------------

SAID = {"type": "message", "role": "assistant", "content": [{"type": "text", "text": "Hello."}]}
ASKED = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hello?"}]}


def test_a_request_for_a_response():
    asked = {
        "modalities": ["text"],
        "voice": "verse",
        "output_audio_format": "pcm16",
        "max_response_output_tokens": "inf",
        "temperature": 0.7,
        "conversation": "none",
        "metadata": {"a": "b"},
        "input": [SAID, ASKED, {"type": "item_reference", "id": "item_1"}],
    }
    assert to_ga({"type": "response.create", "response": asked})["response"] == {
        "output_modalities": ["text"],
        "audio": {"output": {"voice": "verse", "format": {"type": "audio/pcm", "rate": 24000}}},
        "max_output_tokens": "inf",
        "conversation": "none",
        "metadata": {"a": "b"},
        "input": [
            {**SAID, "content": [{"type": "output_text", "text": "Hello."}]},
            ASKED,
            {"type": "item_reference", "id": "item_1"},
        ],
    }


def test_items():
    create = to_ga({"type": "conversation.item.create", "previous_item_id": "root", "item": SAID})
    assert create["item"]["content"] == [{"type": "output_text", "text": "Hello."}]
    assert create["previous_item_id"] == "root"
    assert to_ga({"type": "conversation.item.create", "item": ASKED})["item"] == ASKED


@pytest.mark.parametrize(
    "payload",
    [
        b'{"type":"input_audio_buffer.append","audio":"AAAA"}',
        b'{"event_id":"e","type":"input_audio_buffer.append","audio":"AAAA"}',
        b'{ "type":"response.cancel" }',
        b'{"type":"unheard.of","modalities":["text"]}',
        b'{"type":"session.update","type":"response.create"}',
        b'{"type":"session.update","session":{"voice":"a","voice":"b"}}',
        b"not JSON",
        b"[1]",
        b'{"type":7}',
    ],
)
def test_what_is_the_same_or_cannot_be_read_for_certain_stays_to_the_byte(payload):
    assert beta.to_ga(payload) is payload


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=8,
)
odd_keys = st.sampled_from(
    ["session", "response", "item", "part", "error", "type", "audio", "input", "output", "content", "role"]
) | st.sampled_from(["format", "modalities", "voice", "output_modalities", "input_audio_format", "param"])
odd_values = st.recursive(
    json_values | st.just("assistant"),
    lambda inner: st.dictionaries(odd_keys, inner, max_size=4) | st.lists(inner, max_size=2),
    max_leaves=12,
)


@given(
    st.sampled_from([*sorted(SERVER_TYPES), *beta._CLIENT, "unheard.of"]),
    st.dictionaries(odd_keys, odd_values),
)
def test_no_shape_is_too_odd(kind, fields):
    payload = msgspec.json.encode({**fields, "type": kind})
    assert msgspec.json.decode(beta.to_ga(payload))
    translated = beta.from_ga(payload)
    assert (translated is None) == (kind in beta.DROPPED)


# --- server events ------------------------------------------------------------------------------------------


def test_every_server_event_is_known_to_the_beta_or_dropped_for_a_reason():
    sent = {beta.RENAMED.get(kind, kind) for kind in SERVER_TYPES - set(beta.DROPPED)}
    assert sent <= BETA_TYPES
    assert not set(beta.DROPPED) & BETA_TYPES
    assert set(beta.DROPPED) | set(beta.RENAMED) <= SERVER_TYPES
    assert all(beta.DROPPED.values())
    assert BETA_TYPES - sent == {"transcription_session.updated"}


ITEM = {
    "id": "item_1",
    "object": "realtime.item",
    "type": "message",
    "status": "completed",
    "role": "assistant",
    "content": [{"type": "output_text", "text": "a"}, {"type": "output_audio", "transcript": "b"}],
}
RESPONSE = {
    "id": "resp_1",
    "object": "realtime.response",
    "status": "completed",
    "output": [ITEM],
    "output_modalities": ["audio"],
    "audio": {"output": {"voice": "verse", "format": {"type": "audio/pcm", "rate": 24000}}},
    "max_output_tokens": "inf",
}
PLACE = {"response_id": "resp_1", "item_id": "item_1", "output_index": 0, "content_index": 0}
EVENTS = [
    {"type": "session.created", "session": GA_SESSION},
    {"type": "session.updated", "session": GA_SESSION},
    {"type": "conversation.item.added", "previous_item_id": None, "item": ITEM},
    {"type": "conversation.item.created", "previous_item_id": "item_0", "item": ITEM},
    {"type": "conversation.item.retrieved", "item": ITEM},
    {"type": "response.created", "response": {**RESPONSE, "status": "in_progress", "output": []}},
    {"type": "response.done", "response": RESPONSE},
    {"type": "response.output_item.added", "response_id": "resp_1", "output_index": 0, "item": ITEM},
    {"type": "response.output_item.done", "response_id": "resp_1", "output_index": 0, "item": ITEM},
    {"type": "response.content_part.added", **PLACE, "part": {"type": "audio", "transcript": ""}},
    {"type": "response.content_part.done", **PLACE, "part": {"type": "output_text", "text": "a"}},
    {"type": "response.output_audio.delta", **PLACE, "delta": "AAAA"},
    {"type": "response.output_audio.done", **PLACE},
    {"type": "response.output_audio_transcript.delta", **PLACE, "delta": "a"},
    {"type": "response.output_audio_transcript.done", **PLACE, "transcript": "a"},
    {"type": "response.output_text.delta", **PLACE, "delta": "a"},
    {"type": "response.output_text.done", **PLACE, "text": "a"},
    {
        "type": "error",
        "error": {"type": "x", "message": "no session.audio", "param": "session.audio.output.voice"},
    },
    {"type": "input_audio_buffer.cleared"},
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event["type"])
def test_a_server_event_is_valid_beta(event):
    told = from_ga({"event_id": "e", **event})
    BETA.validate_python(told)
    assert "output_text" not in str(told).replace(event["type"], "")
    assert "output_modalities" not in str(told)
    assert told["event_id"] == "e"


def test_a_response():
    told = from_ga({"type": "response.done", "response": RESPONSE})["response"]
    assert (told["modalities"], told["voice"]) == (["audio", "text"], "verse")
    assert (told["output_audio_format"], told["max_output_tokens"]) == ("pcm16", "inf")
    assert [part["type"] for part in told["output"][0]["content"]] == ["text", "audio"]
    assert "audio" not in told


@pytest.mark.parametrize(
    ("payload", "told"),
    [
        (
            b'{"type":"response.output_audio.delta","delta":"A"}',
            b'{"type":"response.audio.delta","delta":"A"}',
        ),
        (
            b'{ "event_id": "e", "type" : "response.output_text.delta", "x": "response.output_text.delta"}',
            b'{ "event_id": "e", "type" : "response.text.delta", "x": "response.output_text.delta"}',
        ),
        (
            b'{"delta":"A", "type":"response.output_audio.delta"}',
            b'{"delta":"A","type":"response.audio.delta"}',
        ),
        (b'{"type": "unheard.of" }', b'{"type": "unheard.of" }'),
        (b'{"type":"response.done","response":', b'{"type":"response.done","response":'),
    ],
)
def test_deltas_are_renamed_where_they_stand(payload, told):
    assert beta.from_ga(payload) == told


@pytest.mark.parametrize(
    ("param", "named"),
    [
        ("session.audio.input.turn_detection.threshold", "session.turn_detection.threshold"),
        ("session.audio.input.format.type", "session.input_audio_format"),
        ("session.audio.output.voice", "session.voice"),
        ("session.output_modalities[0]", "session.modalities[0]"),
        ("session.max_output_tokens", "session.max_response_output_tokens"),
        ("response.max_output_tokens", "response.max_response_output_tokens"),
        ("response.audio.output.format", "response.output_audio_format"),
        ("session.audio.output.voices", "session.audio.output.voices"),
        ("session.instructions", "session.instructions"),
        ("item.content[0].type", "item.content[0].type"),
    ],
)
def test_errors_blame_what_the_client_wrote(param, named):
    error = {
        "type": "invalid_request_error",
        "message": f"Invalid '{param}'.",
        "param": param,
        "event_id": "e",
    }
    told = from_ga({"type": "error", "error": error})["error"]
    assert told == {**error, "param": named, "message": f"Invalid '{named}'."}
