"""Redaction: what the rules find is gone, and what is no secret is as it was."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtpipe.api.facts import SessionClosed, ToolCalled
from rtpipe.daemon.config_observe import Redaction
from rtpipe.daemon.redaction import Redactor

CARD = "4111 1111 1111 1111"
DEFAULT = Redactor(Redaction())


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (f"my card is {CARD}, thanks", "my card is [card], thanks"),
        ("4111111111111111", "[card]"),
        ("378282246310005 and 5555-5555-5555-4444", "[card] and [card]"),
        ("write to ann.lee+x@mail.example.org.", "write to [email]."),
        ("call +47 22 33 44 55 or (555) 123-4567", "call [phone] or [phone]"),
        ("555-123-4567, 0171 1234567", "[phone], [phone]"),
    ],
)
def test_what_is_found(text, told):
    assert DEFAULT.text(text) == told


@pytest.mark.parametrize(
    "text",
    [
        "4111111111111112 is no card",
        "resp_4111111111111111",
        "2026-11-22 at 10:30",
        "127.0.0.1:8787 and 192.168.100.200",
        "1011 internal error",
        "$1200.50, 3.14159265358979",
    ],
)
def test_what_is_not(text):
    assert DEFAULT.text(text) == text


@given(st.lists(st.integers(0, 9), min_size=12, max_size=18), st.sampled_from(["", " ", "-"]))
def test_every_number_with_the_check_digit_of_a_card_is_found(digits, gap):
    for check in range(10):
        number = [*digits, check]
        total = sum(
            d if i % 2 == 0 else (d * 2 - 9 if d > 4 else d * 2) for i, d in enumerate(reversed(number))
        )
        if total % 10 == 0:
            assert Redactor(Redaction(phones=False)).text(gap.join(map(str, number))) == "[card]"


def test_rules():
    rules = Redactor(
        Redaction(
            cards=False,
            patterns={"account": "ACC-[0-9]{4}"},
            tools={"book": ("guest.name", "seats"), "all": ("*",)},
        )
    )
    assert rules.text(f"ACC-1234 {CARD.replace(' ', '')}") == f"[account] {CARD.replace(' ', '')}"
    arguments = '{"guest":{"name":"Ann","vip":true},"seats":3,"note":"ACC-1234"}'
    assert json.loads(rules.arguments("book", arguments)) == {
        "guest": {"name": "[field]", "vip": True},
        "seats": "[field]",
        "note": "[account]",
    }
    assert json.loads(rules.arguments("all", '{"a":1}')) == {"a": "[field]"}
    assert rules.arguments("book", "{broken") == "[arguments]"
    assert rules.arguments("other", '{"seats":3}') == '{"seats":3}'


def test_facts():
    closed = SessionClosed(principal="a@b.example", code=4000, reason=CARD, cause="client", duration_s=1)
    told = DEFAULT.fact(closed)
    assert (told.reason, told.principal) == ("[card]", "a@b.example")
    called = ToolCalled(
        name="pay", call_id="c", stage="s", duration_s=1, status="ok", arguments=json.dumps({"n": CARD})
    )
    assert DEFAULT.fact(called).arguments == '{"n": "[card]"}'


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("item_BxTq0123456789ab", None),
        ("550e8400-e29b-41d4-a716-446655440000", None),
        ("4111111111111111", "[card]"),
        ("call 4111-1111-1111-1111", "call [card]"),
        ("card-4111111111111111", "card-[card]"),
        ("jo@example.org", "[email]"),
    ],
)
def test_what_clients_write_where_names_stand(name, told):
    for key in ("type", "event_id", "item_id"):
        assert Redactor(Redaction()).json({key: name}) == {key: told or name}


def test_events():
    def shown(event):
        return json.loads(DEFAULT.event(event["type"], json.dumps(event).encode()))

    digits = CARD.replace(" ", "")
    audio = {"type": "input_audio_buffer.append", "audio": digits + "AAAA"}
    assert shown(audio) == audio
    assert shown({"type": "response.output_text.delta", "delta": "4111 1111"})["delta"] == "[…]"
    item = {
        "id": f"item_{digits}",
        "content": [
            {"type": "input_text", "text": f"card {CARD}"},
            {"type": "input_image", "image_url": digits},
        ],
    }
    told = shown({"type": "conversation.item.create", "item": item})["item"]
    assert told["id"] == item["id"]
    assert [part.get("text") for part in told["content"]] == ["card [card]", None]
    assert told["content"][1]["image_url"] == digits
    call = {"type": "function_call", "name": "pay", "arguments": json.dumps({"n": CARD})}
    assert CARD not in json.dumps(shown({"type": "response.output_item.done", "item": call}))
    assert CARD not in DEFAULT.event("", f"no JSON {CARD}".encode()).decode()


@pytest.mark.parametrize(("pattern", "why"), [("(", "no regular expression"), ("x*", "finds what is empty")])
def test_mistakes(pattern, why):
    with pytest.raises(ValueError, match=why):
        Redaction(patterns={"word": pattern})
