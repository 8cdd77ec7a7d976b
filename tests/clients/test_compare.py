"""What makes clients comparable must not make different conversations alike."""

import pytest

from tests.clients.compare import cut, first_difference, lock_unmarked, lock_waits
from tests.clients.recorder import Heard


def conversation(item: str = "item_1", event: str = "event_1", text: str = "Hi") -> Heard:
    create = {"type": "conversation.item.create", "item": {"id": item, "content": [{"text": text}]}}
    added = {"type": "conversation.item.added", "event_id": event, "item": {"id": item}}
    return Heard([create], [{"type": "session.created", "session": {"expires_at": 1}}, added])


def test_other_ids_are_no_difference():
    assert first_difference(conversation(), conversation("item_9", "event_9")) is None


def test_ids_that_no_renaming_makes_alike_are():
    crossed = conversation()
    crossed.sent[1]["item"]["id"] = "item_2"
    assert "event 1 that the model sent: item.id" in first_difference(conversation(), crossed)


def test_the_first_difference_is_shown_from_both_sides():
    found = first_difference(conversation(), conversation(text="Ho"))
    assert found.startswith("event 0 that the model received: item.content")
    assert '"Hi"' in found.partition("through rtpipe")[0]
    assert '"Ho"' in found.partition("through rtpipe")[2]


def test_what_is_missing_and_what_is_more_is_a_difference():
    less = Heard([], conversation().sent)
    assert first_difference(conversation(), less).endswith("through rtpipe nothing")
    assert "directly nothing" in first_difference(less, conversation())


@pytest.mark.parametrize(
    ("name", "alike"), [("response.output_text.delta", True), ("response.output_text.done", False)]
)
def test_an_interrupted_turn_may_differ_in_its_deltas_alone(name, alike):
    longer = conversation()
    longer.sent.append({"type": name, "event_id": "event_2"})
    assert (first_difference(conversation(), longer, cut) is None) is alike


def test_the_mark_of_the_lock_is_left_out_and_no_other_metadata():
    def asked(**metadata: str) -> Heard:
        return Heard(
            [{"type": "response.create", "event_id": "rtp_1", "response": {"metadata": metadata}}], []
        )

    plain = Heard([{"type": "response.create"}], [])
    assert first_difference(plain, asked(rtpipe_response_lock="rtp_1"), lock_unmarked) is None
    assert first_difference(plain, asked(rtpipe_response_lock="rtp_1", mine="a"), lock_unmarked) is not None


def test_a_create_that_waits_instead_of_being_refused_is_the_only_difference_of_the_lock():
    created, second = (
        {"type": "response.created", "response": {"id": each}} for each in ("resp_1", "resp_2")
    )
    refusal = {"type": "error", "error": {"code": "conversation_already_has_active_response"}}
    assert first_difference(Heard([], [created, refusal]), Heard([], [created, second]), lock_waits) is None
    other = {"type": "error", "error": {"code": "invalid_value"}}
    assert first_difference(Heard([], [created, other]), Heard([], [created, second]), lock_waits) is not None
