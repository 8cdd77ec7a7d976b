"""The public keys of an identity provider: fetched in the background, kept, fetched anew when they change."""

import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

import httpx2
import jwt
import msgspec
import trio
from trio import current_time

from rtpipe_auth.config import Issuer, is_safe_url

# Its lines have addresses in them, and at the level debug the headers too.
for name in ("httpx2", "httpcore2"):
    logging.getLogger(name).setLevel(logging.WARNING)

log = logging.getLogger("rtpipe.auth")

FRESH_S: Final = 600.0
"""After that they are fetched anew, and meanwhile used."""
USABLE_S: Final = 24 * 3600.0
"""While they cannot be fetched."""
SPACING_S: Final = 10.0
"""Between two attempts, whatever tokens come."""
FETCH_S: Final = 5.0
WAIT_S: Final = 4.0
"""What one caller waits for keys; within what authenticating may take."""
MAX_BYTES: Final = 256 * 1024
MAX_KEYS: Final = 100
Spawn = Callable[[Callable[[], Awaitable[object]]], None]


class Unavailable(Exception):
    """There are no keys to judge by. The text is for the log."""


class KeySet:
    """The keys of one provider. *spawn* runs a task that outlives whoever needed the keys first."""

    def __init__(self, entry: Issuer, client: httpx2.AsyncClient, spawn: Spawn) -> None:
        self._entry = entry
        self._client = client
        self._spawn = spawn
        self._keys: list[dict[str, Any]] = []
        self._fetched_s: float | None = None
        self._tried_s: float | None = None
        self._fetching: trio.Event | None = None
        self.failure = ""
        """Why the last attempt failed; empty when it did not."""

    async def find(self, kid: str | None, algorithm: str) -> jwt.PyJWK | None:
        """The key of this id, None if there is none. Raises ``Unavailable``."""
        if self._age_s() > USABLE_S:
            self._keys = []
            await self._refreshed()
            if self._fetched_s is None or self._age_s() > USABLE_S:
                raise Unavailable(self.failure or "its keys have not come yet")
        elif self._age_s() > FRESH_S:
            self.refresh()
        found = self._lookup(kid, algorithm)
        if found is None:
            await self._refreshed()  # perhaps it is a new one
            found = self._lookup(kid, algorithm)
        return found

    def refresh(self) -> trio.Event | None:
        """Fetch them in the background, unless that has just been tried; the event is set when it is done."""
        if self._fetching is None:
            now = current_time()
            if self._tried_s is not None and now - self._tried_s < SPACING_S:
                return None
            self._tried_s = now
            self._fetching = trio.Event()
            self._spawn(self._fetch)
        return self._fetching

    async def _refreshed(self) -> None:
        if (done := self.refresh()) is not None:
            with trio.move_on_after(WAIT_S):
                await done.wait()

    def _age_s(self) -> float:
        return float("inf") if self._fetched_s is None else current_time() - self._fetched_s

    def _lookup(self, kid: str | None, algorithm: str) -> jwt.PyJWK | None:
        matching = [key for key in self._keys if kid is None or key.get("kid") == kid]
        if len(matching) != 1 or matching[0].get("alg", algorithm) != algorithm:
            return None
        try:
            return jwt.PyJWK(matching[0], algorithm=algorithm)
        except (jwt.PyJWTError, ValueError, TypeError, KeyError):
            return None  # of another kind than the algorithm wants

    async def _fetch(self) -> None:
        done = self._fetching
        assert done is not None
        try:
            with trio.fail_after(FETCH_S):
                keys = _keys_of(await self._get(self._entry.jwks_url or await self._discovered()))
        except (httpx2.HTTPError, httpx2.StreamError, trio.TooSlowError, Unavailable) as exc:
            why = str(exc) if isinstance(exc, Unavailable) else type(exc).__name__
            if why != self.failure:
                log.warning("the keys of issuer %s cannot be had: %s", self._entry.id, why)
            self.failure = why
        else:
            self.failure = ""
            self._keys, self._fetched_s = keys, current_time()
        finally:
            self._fetching = None
            done.set()

    async def _discovered(self) -> str:
        """Where its OpenID configuration says that the keys are."""
        document = await self._get(self._entry.issuer.rstrip("/") + "/.well-known/openid-configuration")
        if document.get("issuer") != self._entry.issuer:
            raise Unavailable("its OpenID configuration is that of another issuer")
        url = document.get("jwks_uri")
        if not isinstance(url, str) or not is_safe_url(url):
            raise Unavailable("its OpenID configuration names no https:// address of keys")
        return url

    async def _get(self, url: str) -> dict[str, Any]:
        request = self._client.build_request("GET", url, headers={"accept-encoding": "identity"})
        response = await self._client.send(request, stream=True)
        try:
            if response.status_code != 200:
                raise Unavailable(f"it answered {response.status_code}")
            body = bytearray()
            with trio.CancelScope() as enough:
                async for chunk in response.aiter_raw():
                    body += chunk
                    if len(body) > MAX_BYTES:
                        enough.cancel()
        finally:
            await response.aclose()
        try:
            if len(body) <= MAX_BYTES:
                return msgspec.json.decode(bytes(body), type=dict[str, Any])
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            pass
        raise Unavailable("it answered with something else than a JSON object of a reasonable size")


def _keys_of(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Those that may sign tokens. A symmetric key is no public one."""
    keys = document.get("keys")
    if not isinstance(keys, list):
        raise Unavailable("it answered with no list of keys")
    found = [key for key in keys if isinstance(key, dict) and key.get("use", "sig") == "sig"]
    return [key for key in found if key.get("kty") in ("RSA", "EC", "OKP")][:MAX_KEYS]
