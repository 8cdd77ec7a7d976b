"""Where a caller may put a key, and what is refused before it is looked at.

No message here contains anything the caller sent: it might be a key.
"""

import re

from rtpipe import ConnectRequest, Refused

SUBPROTOCOL = "openai-insecure-api-key."
# Long enough for tokens with many claims. Printable ASCII is what a header can carry everywhere, and always
# encodes; the rest is not worth hashing.
USABLE_KEY = re.compile(r"[!-~]{1,8192}")
_TOKEN = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")

_HOW = (
    "send it as 'Authorization: Bearer KEY' or 'api-key: KEY', "
    f"or from a browser as the subprotocol '{SUBPROTOCOL}KEY'"
)
# As people write them, in lower case and with '-' for '_'.
_QUERY_NAMES = frozenset(
    {"access-token", "api-key", "api-token", "apikey", "auth", "authorization", "bearer", "key", "token"}
    | {"client-secret", "openai-api-key", "openai-insecure-api-key", "x-api-key"}
)


def unauthorized(code: str, message: str) -> Refused:
    """A 401 with the header that HTTP wants beside it."""
    return Refused(401, code, message, {"WWW-Authenticate": "Bearer"})


def is_token(key: str) -> bool:
    """Whether it has the shape of a JWT."""
    return _TOKEN.fullmatch(key) is not None


def presented_key(request: ConnectRequest) -> str | None:
    """The key that came with *request*, ``None`` if none did; raises ``Refused`` if it cannot be one."""
    if any(name.lower().replace("_", "-") in _QUERY_NAMES for name in request.query):
        raise Refused(400, "api_key_in_query", f"A key in the URL ends up in logs. Replace that key; {_HOW}.")
    found = {_bearer(value) for value in request.headers.get("authorization", ())}
    found.update(request.headers.get("api-key", ()))
    found.update(p.removeprefix(SUBPROTOCOL) for p in request.subprotocols if p.startswith(SUBPROTOCOL))
    if not found:
        return None
    if len(found) > 1:
        raise Refused(400, "several_api_keys", "You provided different keys at once: send one.")
    key = found.pop()
    if not USABLE_KEY.fullmatch(key):
        raise unauthorized(
            "invalid_api_key", "Incorrect key provided: a key is 1 to 8192 printable ASCII characters."
        )
    return key


def missing_key() -> Refused:
    """For a caller who brought none and needs one."""
    return unauthorized("missing_api_key", f"You did not provide a key: {_HOW}.")


def _bearer(value: str) -> str:
    scheme, _, key = value.strip().partition(" ")
    if scheme.lower() != "bearer" or not key:
        raise unauthorized(
            "malformed_authorization", "The Authorization header must read 'Bearer' and the key."
        )
    return key.strip()
