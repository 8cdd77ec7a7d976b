"""What tools say of their failures: sentences reach the model, technical details the log."""

from typing import Any

import msgspec
import pytest

from rtpipe import Tool, tool_error
from rtpipe_tool_dispatcher.sayable import is_sayable

TRACE = 'Traceback (most recent call last):\n  File "/srv/desk.py", line 7, in book\nKeyError: 4'
TECHNICAL = [
    TRACE,
    'File "desk.py", line 7',
    "java.lang.NullPointerException: x",
    "at com.shop.Desk.book(Desk.java:12)",
    "at book (file.js:3:12)",
    "goroutine 1 [running]:",
    "ValueError: no such guest",
    "[Errno 111] Connection refused",
    "connect ECONNREFUSED",
    "SELECT secret FROM users",
    "SELECT *\nFROM users",
    "select name from users where id = 7",
    "select * from users",
    "INSERT INTO orders VALUES (1)",
    "update users set name='x'",
    "DROP TABLE users",
    'near "FORM": syntax error',
    "duplicate key value violates unique constraint",
    "ORA-00942",
    "could not reach db-7.internal",
    "could not reach db-7.prod.example.com",
    "could not reach example.com:5432",
    "could not reach https://example.com/x",
    "could not reach postgres://u:p@db/x",
    "no route to 10.1.2.3",
    "no route to 2001:db8::7",
    "no route to ::1",
    "nobody listens at localhost",
    "cannot open /etc/desk/passwords",
    "cannot open C:\\desk\\passwords",
]
SENTENCES = [
    "Closed today. Try again tomorrow.",
    "Please select a date from the list, and delete from it what you do not need.",
    "We update the menu and set the price at 12.50 euros, i.e. e.g. at 10:30:00.",
    "Write to info@shop.example.com or see www.example.com.",
    "No table for 4 at 7 p.m. on 2026-11-22; the next one is at 20:15.",
    "Version 1.2.3 is not sold any more, and an error occurred.",
    "Wählen Sie bitte einen anderen Tag: 24./25. Dezember sind belegt.",
    "The number +49 30 1234567 is not known; and/or the PIN is wrong.",
    "请换一个日期。",
]


@pytest.mark.parametrize("text", TECHNICAL)
def test_what_is_technical(text: str) -> None:
    assert not is_sayable(text)
    assert not is_sayable(f"It did not work: {text}.")
    assert not is_sayable(tool_error(text))


@pytest.mark.parametrize("text", SENTENCES)
def test_what_is_a_sentence(text: str) -> None:
    assert is_sayable(text)
    assert is_sayable(tool_error(text))


@pytest.mark.parametrize("retry", ["now", "later", "no"])
async def test_an_error_that_is_technical_is_kept_from_the_model_and_in_the_log(
    talk: Any, offer: Any, retry: Any, caplog: pytest.LogCaptureFixture
) -> None:
    offer.answers("book", tool_error(TRACE, retry))
    async with talk(failure_message="It is broken.") as talking:
        envelope = await talking.answer("book")
        failure_id = envelope.pop("id")
        assert envelope == {"status": "error", "error": "It is broken.", "retry": retry}
        (line,) = [record.getMessage() for record in caplog.records if failure_id in record.getMessage()]
        assert "/srv/desk.py" in line
        assert "\n" not in line
        assert talking.statuses() == ["error"]


@pytest.mark.parametrize(
    "answer",
    [
        msgspec.json.encode({"status": "error", "error": "Closed.", "trace": TRACE}).decode(),
        '{"status":"error","error":"\\u0053ELECT secret \\u0046ROM users"}',
    ],
)
async def test_it_is_found_wherever_it_stands_in_an_error(talk: Any, offer: Any, answer: str) -> None:
    offer.answers("book", answer)
    async with talk() as talking:
        assert set(await talking.answer("book")) == {"status", "error", "retry", "id"}


async def test_only_what_the_model_is_shown_is_judged(talk: Any, offer: Any) -> None:
    offer.answers("book", tool_error("Closed. " * 200 + TRACE, "later"))
    async with talk(max_result_chars=600) as talking:
        envelope = await talking.answer("book")
        assert envelope["error"].startswith("Closed.")
        assert "Traceback" not in envelope["error"]
        assert envelope["retry"] == "later"


async def test_masked_values_are_not_logged_with_it(
    talk: Any, offer: Any, tool: Any, caplog: pytest.LogCaptureFixture
) -> None:
    offer.answers(
        Tool(name="pay", description="", parameters={}, mask=("card",)), tool_error(f"{TRACE} 4111")
    )
    async with talk() as talking:
        await talking.answer("pay", {"card": "4111"})
    assert "/srv/desk.py" in caplog.text
    assert "4111" not in caplog.text


async def test_a_result_that_is_no_error_is_the_tools_answer(talk: Any, offer: Any) -> None:
    offer.answers("manual", "SELECT reads FROM a table")
    async with talk() as talking:
        assert (await talking.answer("manual"))["result"] == "SELECT reads FROM a table"
