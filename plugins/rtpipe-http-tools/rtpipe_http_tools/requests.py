"""From a call to the request that asks an endpoint, and from its answer to a result."""

from typing import Any
from urllib.parse import quote

import httpx2
import msgspec
import trio

from rtpipe import tool_error
from rtpipe_http_tools.config import PLACE, Endpoint

_IN_QUERY = frozenset({"GET", "DELETE"})
_JSON = {"content-type": "application/json"}


class BadArgument(Exception):
    """The model has to ask for an argument again; the text is for it."""


class Failed(Exception):
    """The endpoint has failed; the text is for the log."""


def request(client: httpx2.AsyncClient, endpoint: Endpoint, arguments: dict[str, Any]) -> httpx2.Request:
    """Raises ``BadArgument``."""
    rest = {name: value for name, value in arguments.items() if name not in endpoint.places}
    url = httpx2.URL(PLACE.sub(lambda place: _in_path(place[1], arguments), endpoint.url))
    if endpoint.method in _IN_QUERY:
        url = url.copy_merge_params([pair for name, value in rest.items() for pair in _in_query(name, value)])
        return client.build_request(endpoint.method, url)
    return client.build_request(endpoint.method, url, content=msgspec.json.encode(rest), headers=_JSON)


def _in_path(name: str, arguments: dict[str, Any]) -> str:
    value = arguments.get(name)
    if value is None or isinstance(value, dict | list):
        raise BadArgument(f"The argument {name} is missing: ask the caller for it.")
    text = _text(value)
    if text in ("", ".", ".."):  # they would make it another path
        raise BadArgument(f"The argument {name} cannot be used: ask the caller for it again.")
    return quote(text, safe="", errors="replace")


def _in_query(name: str, value: Any) -> list[tuple[str, str]]:
    if value is None:
        return []
    return [(name, _text(each)) for each in (value if isinstance(value, list) else [value])]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


async def answer(response: httpx2.Response, endpoint: Endpoint) -> str:
    """The result, or an error the model may speak of. Raises ``Failed``."""
    status = response.status_code
    if status == 429:
        return tool_error("There are too many requests just now.", "later")
    if status == 404:
        return tool_error("Nothing was found for these values.")
    if 400 <= status < 500 and status not in (401, 403, 407, 408):
        return tool_error("These values were not accepted.")
    if not 200 <= status < 300:
        raise Failed(f"its endpoint answered {status}")
    body = await _body(response, endpoint.max_response_bytes)
    if not endpoint.result:
        return body.decode(errors="replace")
    try:
        value = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise Failed("its endpoint answered with something else than JSON") from None
    return msgspec.json.encode(_at(value, endpoint.result)).decode()


async def _body(response: httpx2.Response, max_bytes: int) -> bytes:
    body = bytearray()
    # Nothing compressed was asked for: a small answer may unfold into one without end.
    if response.headers.get("content-encoding", "identity") != "identity":
        raise Failed("its endpoint answered with compressed content")
    # By cancellation: left in the middle, the library's generators would be closed by nobody.
    with trio.CancelScope() as enough:
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) > max_bytes:
                enough.cancel()
    if len(body) > max_bytes:
        raise Failed(f"its endpoint answered with more than {max_bytes} bytes")
    return bytes(body)


def _at(value: Any, path: str) -> Any:
    for key in path.split("."):
        if isinstance(value, dict) and key in value:
            value = value[key]
        elif isinstance(value, list) and key.isdecimal() and int(key) < len(value):
            value = value[int(key)]
        else:
            raise Failed(f"the answer of its endpoint has no {path}")
    return value
