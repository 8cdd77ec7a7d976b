"""Tokens of identity providers (JWT): judged, and made into principals."""

import logging
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import jwt
import msgspec

from rtpipe import END_USER, Principal, Refused
from rtpipe_auth.config import ROLES, Issuer, is_id
from rtpipe_auth.credentials import unauthorized
from rtpipe_auth.key_sets import KeySet, Unavailable
from rtpipe_auth.policy import POLICY_LABEL

log = logging.getLogger("rtpipe.auth")

_TEXT_CHARS: Final = 256
_LISTS: Final = ("models", "tools", "voices", "modalities")
_MISSING: Final = object()


class Tokens:
    """The identity providers there are. *now* is the wall clock; *policies* the names that claims may say."""

    def __init__(
        self, issuers: Mapping[str, tuple[Issuer, KeySet]], policies: Iterable[str], now: Callable[[], float]
    ) -> None:
        """*issuers* by the `iss` of their tokens."""
        self._issuers = issuers
        self._policies = frozenset(policies)
        self._now = now

    async def holder(self, token: str) -> tuple[Issuer, Principal]:
        """Who issued a token, and its principal. Raises ``Refused``, which repeats nothing of the token."""
        try:
            header = jwt.get_unverified_header(token)
            claimed = jwt.decode(token, options={"verify_signature": False}).get("iss")
        except (jwt.PyJWTError, ValueError, RecursionError):
            raise _bad("it cannot be read") from None
        known = self._issuers.get(claimed) if isinstance(claimed, str) else None
        if known is None:
            raise _bad("its issuer is not known here")
        entry, keys = known
        algorithm, kid = header.get("alg"), header.get("kid")
        if algorithm not in entry.algorithms or not (kid is None or isinstance(kid, str)):
            raise _bad("its signature is of a kind that is not accepted")
        try:
            key = await keys.find(kid, algorithm)
        except Unavailable:
            message = "The keys of this token's issuer cannot be had just now; try again later."
            raise Refused(503, "issuer_unavailable", message, {"Retry-After": "10"}) from None
        if key is None:
            raise _bad("its issuer has no such key")
        return entry, self._principal(entry, self._checked(entry, token, key, algorithm))

    def _checked(self, entry: Issuer, token: str, key: jwt.PyJWK, algorithm: str) -> dict[str, Any]:
        """The claims, when all that has to be right is."""
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                issuer=entry.issuer,
                audience=list(entry.audience),
                # Times are judged below, by a clock that tests can set.
                options={
                    "require": ["exp", "iss", "aud"],
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                },
            )
        except jwt.InvalidAudienceError:
            raise _bad("it is for another audience") from None
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
            raise _bad("it is not valid") from None
        now = self._now()
        for name in ("exp", "nbf", "iat"):
            value = claims.get(name, 0.0)
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise _bad("its times are not valid")
        if claims["exp"] + entry.leeway_s <= now:
            raise unauthorized("token_expired", "This token has expired: get another one.")
        if max(claims.get("nbf", 0.0), claims.get("iat", 0.0)) - entry.leeway_s > now:
            raise _bad("it is not valid yet")
        return claims

    def _principal(self, entry: Issuer, claims: Mapping[str, Any]) -> Principal:
        granted, names = entry.principal(), entry.claims
        changes: dict[str, Any] = {"expires_at": claims["exp"] + entry.leeway_s}
        labels = dict(granted.labels)
        for label, claim in {**names.labels, END_USER: names.end_user}.items():
            if (value := _claim(claims, claim)) is not _MISSING:
                labels[label] = _text(claim, value)
        if names.policy is not None and (value := _claim(claims, names.policy)) is not _MISSING:
            if value not in self._policies:
                raise _unusable(names.policy)
            labels[POLICY_LABEL] = value
        changes["labels"] = labels
        if names.id is not None:
            value = _claim(claims, names.id)
            if not isinstance(value, str) or not is_id(value):
                raise _unusable(names.id)
            changes["id"] = value
        if names.roles is not None and (value := _claim(claims, names.roles)) is not _MISSING:
            changes["roles"] = granted.roles & _words(names.roles, value) & frozenset(ROLES)
        for field in _LISTS:
            claim = getattr(names, field)
            if claim is not None and (value := _claim(claims, claim)) is not _MISSING:
                most = getattr(granted, field)
                words = _words(claim, value)
                changes[field] = words if most is None else most & words
        if names.limits is not None and (value := _claim(claims, names.limits)) is not _MISSING:
            changes["limits"] = {**granted.limits, **_limits(names.limits, value)}
        if names.persist is not None and (value := _claim(claims, names.persist)) is not _MISSING:
            if not isinstance(value, bool):
                raise _unusable(names.persist)
            changes["persist"] = granted.persist and value
        return msgspec.structs.replace(granted, **changes)


def _claim(claims: Mapping[str, Any], path: str) -> Any:
    """A claim by its whole name, which may be a URL, else by its path."""
    if path in claims:
        return claims[path]
    value: Any = claims
    for key in path.split("."):
        if not isinstance(value, dict) or key not in value:
            return _MISSING
        value = value[key]
    return value


def _words(claim: str, value: Any) -> frozenset[str]:
    if isinstance(value, str):
        return frozenset(value.split())
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return frozenset(value)
    raise _unusable(claim)


def _text(claim: str, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise _unusable(claim)
    return str(value)[:_TEXT_CHARS]


def _limits(claim: str, value: Any) -> dict[str, str | int | float]:
    if not isinstance(value, dict):
        raise _unusable(claim)
    for each in value.values():
        if isinstance(each, bool) or not isinstance(each, str | int | float):
            raise _unusable(claim)
    return dict(value)


def _bad(why: str) -> Refused:
    return unauthorized("invalid_token", f"This token cannot be used: {why}.")


def _unusable(claim: str) -> Refused:
    """The claim's name is the operator's, its value the caller's."""
    return Refused(
        403, "claim_not_usable", f"The claim {claim!r} of this token is missing or cannot be used."
    )
