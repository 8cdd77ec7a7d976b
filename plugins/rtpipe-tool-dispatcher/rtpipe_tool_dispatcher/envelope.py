"""What the model gets for a call: always an envelope, never too long, honest about what is missing.

``{"status": "success", "result": …}`` or ``{"status": "error", "error": "…", "retry": "now|later|no"}``.
"""

from collections.abc import Iterator
from typing import Any

import msgspec

from rtpipe import Json, Retry, tool_error

_ABOUT_CHARS = 300
"""What an envelope says besides its result: numbers, and how to ask for more."""
PAGED_CHARS = 1_000_000
"""A list in a longer text is cut like any text."""


def failure(message: str, retry: Retry, failure_id: str) -> str:
    """An error of which the log knows more, under an id."""
    return _text({**msgspec.json.decode(tool_error(message, retry)), "id": failure_id})


def is_error(envelope: str) -> bool:
    """Whether an envelope says that the call failed."""
    return bool(_read(envelope).get("status") == "error")


def retry_of(envelope: str) -> Retry | None:
    """The ``retry`` of an error, where it has one that is known."""
    found = _read(envelope).get("retry")
    return found if found in ("now", "later", "no") else None


def words(envelope: str) -> str:
    """What an envelope says, without ways to write the same otherwise."""
    return _text(_read(envelope))


def with_retry(envelope: str, retry: Retry) -> str:
    """An error with another ``retry``; a success as it is."""
    read = _read(envelope)
    return _text({**read, "retry": retry}) if read.get("status") == "error" else envelope


def wrap(answer: str) -> str:
    """A tool's answer in an envelope; one that is an envelope already comes back as it is."""
    answer = answer.encode(errors="replace").decode()  # half a surrogate pair is no text
    value = _value(answer)
    return answer if _is_envelope(value) else _text({"status": "success", "result": value})


def fit(envelope: str, max_chars: int, name: str, page: int = 1, *, can_ask: bool = True) -> str:
    """The envelope, or as much of it as *max_chars* allow: a page of a list, the beginning of all else.

    *can_ask*: whether the next page can be asked for with the argument ``page``.
    """
    read = _read(envelope)
    result = read.get("result")
    if page == 1 and len(envelope) <= max_chars:
        return envelope
    budget = max_chars - _ABOUT_CHARS
    if isinstance(result, list) and len(envelope) <= PAGED_CHARS:
        return _page(result, budget, name, page, can_ask=can_ask)
    if page != 1:
        return tool_error("There are no pages: that was all of it.", "no")
    if read.get("status") == "error":
        return tool_error(_cut(str(read.get("error")), budget), retry_of(envelope) or "no")
    whole = result if isinstance(result, str) else _text(result)
    shown = _cut(whole, budget)
    about = {"truncated": True, "shown_chars": len(shown), "total_chars": len(whole)}
    return _text({"status": "success", "result": shown, **about, "note": "Only the beginning is shown."})


def _page(items: list[Any], budget: int, name: str, page: int, *, can_ask: bool) -> str:
    pages = list(_pages(items, budget))
    if page > len(pages):
        return tool_error(f"There is no page {page}: the last one is {len(pages)}.", "no")
    first, shown = pages[page - 1]
    last = first + len(shown) - 1
    found: Json = {"status": "success", "result": shown, "first": first, "last": last, "total": len(items)}
    if page == len(pages):
        return _text(found)
    found["truncated"] = True
    found["next"] = (
        f'For the next ones call {name} again with the same arguments and "page": {page + 1}.'
        if can_ask
        else "For the others call again with arguments that ask for less."
    )
    return _text(found)


def _pages(items: list[Any], budget: int) -> Iterator[tuple[int, list[Any]]]:
    """(number of the first item, items) of each page. An item too long for any page is cut, as a text."""
    page: list[Any] = []
    first, used = 1, 0
    for number, item in enumerate(items, 1):
        text = _text(item)
        if len(text) > budget:
            item = f"{_cut(text, budget - 20)} (truncated)"
            text = _text(item)
        if page and used + len(text) + 1 > budget:
            yield first, page
            page, first, used = [], number, 0
        page.append(item)
        used += len(text) + 1
    yield first, page


def _cut(text: str, budget: int) -> str:
    """The beginning of a text that is at most *budget* characters long when written as JSON."""
    text = text[:budget]
    while len(_text(text)) > budget:
        text = text[: len(text) * 9 // 10]
    return text


def _is_envelope(value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    status = value.get("status")
    return (status == "success" and "result" in value) or (
        status == "error" and isinstance(value.get("error"), str)
    )


def _read(envelope: str) -> Json:
    value = _value(envelope)
    return value if isinstance(value, dict) else {}


def _value(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, RecursionError):
        return text


def _text(value: Any) -> str:
    return msgspec.json.encode(value).decode()
