import itertools

import pytest

from rtpipe.protocol.catalogue import CLIENT_TYPES, DOWNSTREAM, SERVER_TYPES, UPSTREAM, Client, Server
from rtpipe.protocol.ordering import SILENT_CREATE, TABLE, as_markdown, kind_of_create, must_wait

ORDERED = [
    *(Client.ITEM_CREATE, Client.ITEM_DELETE, Client.SESSION_UPDATE, Client.RESPONSE_CREATE),
    *(Client.AUDIO_COMMIT, Client.AUDIO_CLEAR, "unknown.one", "unknown.two"),
]
AT_ONCE = [Client.RESPONSE_CANCEL, Client.ITEM_TRUNCATE, Client.ITEM_RETRIEVE, Client.OUTPUT_AUDIO_CLEAR]
CLOSING = [Client.AUDIO_COMMIT, Client.AUDIO_CLEAR]


def test_upstream_what_is_ordered_waits_for_each_other() -> None:
    assert {*ORDERED, *AT_ONCE, Client.AUDIO_APPEND} >= CLIENT_TYPES
    assert all(must_wait(later, held, UPSTREAM) for later, held in itertools.product(ORDERED, ORDERED))


def test_upstream_audio_waits_for_audio_and_what_closes_it() -> None:
    for held in [*ORDERED, *AT_ONCE]:
        assert must_wait(Client.AUDIO_APPEND, held, UPSTREAM) == (held in CLOSING)
    for later in [*ORDERED, *AT_ONCE]:
        assert must_wait(later, Client.AUDIO_APPEND, UPSTREAM) == (later in CLOSING)
    assert must_wait(Client.AUDIO_APPEND, Client.AUDIO_APPEND, UPSTREAM)


def test_upstream_interrupting_and_looking_up_wait_for_nothing_but_their_own_kind() -> None:
    for one, other in itertools.product(AT_ONCE, [*ORDERED, *AT_ONCE, Client.AUDIO_APPEND]):
        assert must_wait(one, other, UPSTREAM) == (one == other)
        assert must_wait(other, one, UPSTREAM) == (one == other)


def test_silent_responses_and_voices_do_not_wait_for_each_other_but_for_the_same() -> None:
    assert must_wait(SILENT_CREATE, SILENT_CREATE, UPSTREAM)
    assert not must_wait(SILENT_CREATE, Client.RESPONSE_CREATE, UPSTREAM)
    assert not must_wait(Client.RESPONSE_CREATE, SILENT_CREATE, UPSTREAM)
    for other in {*ORDERED, *AT_ONCE, Client.AUDIO_APPEND} - {Client.RESPONSE_CREATE}:
        for one, same in ((SILENT_CREATE, Client.RESPONSE_CREATE),):
            assert must_wait(one, other, UPSTREAM) == must_wait(same, other, UPSTREAM)
            assert must_wait(other, one, UPSTREAM) == must_wait(other, same, UPSTREAM)


TEXT, AUDIO = {"output_modalities": ["text"]}, {"output_modalities": ["audio"]}


@pytest.mark.parametrize(
    ("response", "heard", "session", "silent"),
    [
        (None, True, {}, False),
        ({"conversation": "auto"}, False, TEXT, False),
        ({"conversation": "none"}, True, {}, False),
        ({"conversation": "none"}, False, {}, True),
        ({"conversation": "none"}, True, TEXT, True),
        ({"conversation": "none", **AUDIO}, True, TEXT, False),
        ({"conversation": "none", **AUDIO}, False, AUDIO, True),
        ({"conversation": "none", **TEXT}, True, AUDIO, True),
        ({"conversation": "none", "output_modalities": 7}, True, {}, False),
    ],
)
def test_which_creates_are_silent(response: object, heard: bool, session: dict, silent: bool) -> None:  # type: ignore[type-arg]
    create = {"type": "response.create", "response": response}
    assert (kind_of_create(create, heard=heard, session=session) == SILENT_CREATE) == silent


NOTICES = [Server.ERROR, Server.RATE_LIMITS_UPDATED]
SPEECH = [Server.SPEECH_STARTED, Server.SPEECH_STOPPED, Server.TIMEOUT_TRIGGERED]
TRANSCRIPTION = [
    *(Server.TRANSCRIPTION_DELTA, Server.TRANSCRIPTION_SEGMENT),
    *(Server.TRANSCRIPTION_COMPLETED, Server.TRANSCRIPTION_FAILED),
]
SESSION = [Server.SESSION_CREATED, Server.SESSION_UPDATED]
PASSING = {*NOTICES, *SPEECH, *TRANSCRIPTION, *SESSION}
OTHERS = [*sorted(SERVER_TYPES - PASSING), "unknown.one", "unknown.two"]
FAMILIES = (SESSION, SPEECH, TRANSCRIPTION, OTHERS)


def test_downstream() -> None:
    for later, held in itertools.product(SERVER_TYPES | {"unknown.one", "unknown.two"}, repeat=2):
        together = any(later in group and held in group for group in FAMILIES)
        assert must_wait(later, held, DOWNSTREAM) == (together or later == held), (later, held)


def test_a_response_that_ends_is_never_passed_by_the_next() -> None:
    assert must_wait(Server.RESPONSE_CREATED, Server.RESPONSE_DONE, DOWNSTREAM)


@pytest.mark.parametrize("direction", [UPSTREAM, DOWNSTREAM])
def test_the_markdown_shows_the_whole_table(direction: str) -> None:
    text = as_markdown()
    for row in TABLE[direction]:  # type: ignore[index]
        line = next(line for line in text.splitlines() if line.startswith(f"| {direction} | {row.name} |"))
        assert all(f"`{name}`" in line for name in row.kinds)
        assert all(name in line.split("|")[4] for name in row.waits_behind)


def test_the_table_only_names_rows_and_types_that_are_there() -> None:
    for direction, known in ((UPSTREAM, CLIENT_TYPES | {SILENT_CREATE}), (DOWNSTREAM, SERVER_TYPES)):
        rows = TABLE[direction]
        assert not rows[-1].kinds
        assert all(row.waits_behind <= {other.name for other in rows} for row in rows)
        for name in [name for row in rows for name in row.kinds]:
            assert any(type_ == name or type_.startswith(name.removesuffix("*")) for type_ in known)
