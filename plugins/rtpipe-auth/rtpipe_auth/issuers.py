"""Those whose tokens let somebody in, and their keys.

It brings a cryptography library, so it is loaded where there are any: most have none.
"""

from collections.abc import Callable

import httpx2

from rtpipe import Principal
from rtpipe_auth.config import Config, Issuer
from rtpipe_auth.key_sets import KeySet, Spawn
from rtpipe_auth.tokens import Tokens


class Issuers:
    """All that are configured; their keys are fetched over one client."""

    def __init__(self, config: Config, spawn: Spawn, now: Callable[[], float]) -> None:
        """*spawn* runs a task that outlives whoever needed keys first; *now* tells seconds since 1970."""
        self._client = httpx2.AsyncClient(follow_redirects=False, trust_env=False, timeout=None)
        self._all = [(each, KeySet(each, self._client, spawn)) for each in config.issuers]
        for keys in self.key_sets:
            keys.refresh()
        self._tokens = Tokens({each.issuer: (each, keys) for each, keys in self._all}, config.policies, now)

    @property
    def key_sets(self) -> list[KeySet]:
        """Of each issuer the keys, in the order of the configuration."""
        return [keys for _, keys in self._all]

    async def holder(self, token: str) -> tuple[Issuer, Principal]:
        """Who issued a token, and its principal. Raises ``Refused``, which repeats nothing of the token."""
        return await self._tokens.holder(token)

    def failure(self) -> str | None:
        """Whose keys cannot be had, and why, if there is such an issuer."""
        for entry, keys in self._all:
            if keys.failure:
                return f"the keys of issuer {entry.id} cannot be had: {keys.failure}"
        return None

    async def aclose(self) -> None:
        """Close what connections there are."""
        await self._client.aclose()
