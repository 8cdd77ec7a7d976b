"""How a session gets an upstream: those that know its model, in the order of the configuration."""

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import trio

from rtpipe.daemon.config_upstream import Upstream
from rtpipe.protocol.catalogue import Server
from rtpipe.protocol.reading import peek_server_type
from rtpipe.session.replacement import retry_after_s
from rtpipe.transport.connection import Connection, ConnectionLost, Peer
from rtpipe.transport.dialer import DialFailed, DialRefused, DialTimeout

log = logging.getLogger("rtpipe.daemon")

MAX_REST_S = 60.0
_PASSING = frozenset({408, 425, 429})
Attempt = Callable[[Upstream, str], Awaitable[Connection]]
"""Dials one upstream for a model, as the session's stages want it."""


@dataclass(frozen=True, slots=True)
class _Rest:
    until_s: float
    failures: int
    failure: DialRefused | None
    """The refusal that said for how long; that is kept to."""


class Rests:
    """Which upstreams are not to be dialled first for a while, or not at all. Shared by all sessions."""

    def __init__(self) -> None:
        self._rests: dict[str, _Rest] = {}

    def failed(self, name: str, failure: Exception) -> None:
        """An upstream could not be had: it rests, longer each time."""
        if isinstance(failure, DialRefused) and failure.status < 500 and failure.status not in _PASSING:
            return  # it would say the same to the next one: whoever else there is is asked anyway
        before = self._rests.get(name)
        failures = 1 if before is None else before.failures + 1
        asked_s = retry_after_s(failure)
        rest_s = max(asked_s, min(2.0 ** (failures - 1), MAX_REST_S))
        kept = failure if asked_s and isinstance(failure, DialRefused) else None
        self._rests[name] = _Rest(trio.current_time() + rest_s, failures, kept)
        log.warning("upstream %s rests for %g s: %s", name, rest_s, failure)

    def worked(self, name: str) -> None:
        if self._rests.pop(name, None) is not None:
            log.info("upstream %s is in service again", name)

    def until_s(self, name: str) -> float:
        """Until when it rests; 0 where it does not."""
        rest = self._rests.get(name)
        return rest.until_s if rest is not None and rest.until_s > trio.current_time() else 0.0

    def refusal(self, name: str) -> DialRefused | None:
        """What it said when it asked not to be asked again yet."""
        return self._rests[name].failure if self.until_s(name) else None


def candidates(upstreams: Sequence[Upstream], first: Upstream, model: str | None) -> list[Upstream]:
    """*first*, and whoever else knows the model the client asked for."""
    asked = model or first.default_model
    others = [u for u in upstreams if u is not first and (asked == u.default_model or asked in u.models)]
    return [first, *others]


async def connect(
    upstreams: Sequence[Upstream], asked: str | None, attempt: Attempt, rests: Rests, limit_s: float
) -> tuple[Upstream, Connection]:
    """The first of *upstreams* that answers, within *limit_s* in all. Where there are several, one counts as
    answering when its first event has come.

    Raises what the last attempt raised: ``Refused``, ``DialRefused``, ``DialFailed``, ``DialTimeout``.
    """
    if len(upstreams) == 1:
        return upstreams[0], await attempt(upstreams[0], model_at(upstreams[0], asked))
    failure: DialRefused | DialFailed | DialTimeout = DialFailed("no upstream could be dialled")
    deadline_s = trio.current_time() + limit_s
    order = sorted(upstreams, key=lambda upstream: rests.until_s(upstream.name))
    for place, upstream in enumerate(order):
        if (refusal := rests.refusal(upstream.name)) is not None:
            failure = refusal
            continue
        share_s = (deadline_s - trio.current_time()) / (len(order) - place)
        try:
            with trio.fail_after(max(0.0, share_s)):
                connection = await greeted(await attempt(upstream, model_at(upstream, asked)))
        except trio.TooSlowError:
            failure = DialTimeout(f"{upstream.name} did not answer in its time")
        except (DialRefused, DialFailed, DialTimeout) as exc:
            failure = exc
        else:
            rests.worked(upstream.name)
            return upstream, connection
        rests.failed(upstream.name, failure)
    raise failure


def model_at(upstream: Upstream, asked: str | None) -> str:
    """What this upstream calls the model the client asked for."""
    model = asked or upstream.default_model
    return upstream.models.get(model, model)


async def greeted(connection: Connection) -> Connection:
    """The connection once its first event has come. Raises ``DialFailed``, and closes it, if that is an error
    or none comes."""
    try:
        payloads = await connection.receive_many()
    except ConnectionLost:
        raise DialFailed("the upstream closed the connection at once") from None
    except BaseException:
        await connection.close(1000, "")
        raise
    if peek_server_type(payloads[0]) == Server.ERROR:
        await connection.close(1000, "")
        raise DialFailed("the upstream greeted with an error")
    return _Greeted(connection, payloads)


class _Greeted:
    """A connection of which the first payloads have been read."""

    def __init__(self, connection: Connection, payloads: list[bytes]) -> None:
        self._connection = connection
        self._payloads = payloads

    @property
    def peer(self) -> Peer:
        return self._connection.peer

    async def receive_many(self) -> list[bytes]:
        if not self._payloads:
            return await self._connection.receive_many()
        await trio.lowlevel.checkpoint()
        payloads, self._payloads = self._payloads, []
        return payloads

    async def receive(self) -> bytes:
        if not self._payloads:
            return await self._connection.receive()
        await trio.lowlevel.checkpoint()
        return self._payloads.pop(0)

    async def send_many(self, payloads: Sequence[bytes]) -> None:
        await self._connection.send_many(payloads)

    async def send(self, payload: bytes) -> None:
        await self._connection.send(payload)

    def unacknowledged(self) -> int:
        return self._connection.unacknowledged()

    def abort(self, reason: str) -> None:
        self._connection.abort(reason)

    async def close(self, code: int, reason: str) -> None:
        await self._connection.close(code, reason)
