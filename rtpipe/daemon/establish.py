"""From somebody who knocks to a session in service: authenticate, open, dial, and only then answer."""

import logging
import re
import secrets
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import trio

from rtpipe.api.errors import HookFailed, Refused
from rtpipe.api.principal import ANONYMOUS, Principal
from rtpipe.api.request import ConnectRequest
from rtpipe.daemon import failover, refusals
from rtpipe.daemon.config_upstream import Upstream
from rtpipe.daemon.generation import Generation
from rtpipe.daemon.keeper import Keeper
from rtpipe.daemon.process import Process, Served
from rtpipe.daemon.resume import after_of, names_session, place_of
from rtpipe.daemon.standing import renew_limits, require_standing
from rtpipe.daemon.upstreams import TRANSCRIPTION, choose, dial_request, dial_upstream
from rtpipe.protocol.session_config import model as bound_model
from rtpipe.protocol.session_config import session_type
from rtpipe.session import snapshot
from rtpipe.session.session import Session
from rtpipe.session.snapshot import Snapshot
from rtpipe.transport.connection import Connection, ConnectionLost
from rtpipe.transport.dialer import DialFailed, DialRefused, DialTimeout
from rtpipe.transport.exchange import ClientGone

log = logging.getLogger("rtpipe.daemon")

_TRACEPARENT = re.compile("(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_FAILURES = (
    Refused,
    DialRefused,
    DialFailed,
    DialTimeout,
    trio.TooSlowError,
    ClientGone,
    ConnectionLost,
)


@dataclass(frozen=True, slots=True)
class Knock:
    """A client that wants a session, whatever it speaks.

    *accept* gives it its answer and returns its connection; *unless_gone* awaits something as long as the
    client stays, and raises ``ClientGone``.
    """

    request: ConnectRequest
    model: str | None
    intent: str | None
    accept: Callable[[Session], Awaitable[Connection]]
    unless_gone: Callable[[Callable[[], Awaitable[None]]], Awaitable[Any]]


async def serve(process: Process, knock: Knock) -> None:
    """Serve one client until its session ends. Raises ``Refused``, ``ClientGone``, ``ConnectionLost``."""
    if names_session(knock.request) and await _resume(process, knock):
        return
    with process.room(), process.generation.in_use() as generation:
        failure = await _serve(process, generation, knock)
    if failure is not None:
        try:
            raise _as_refusal(failure)
        finally:
            del failure  # its traceback has this frame: the two would keep each other, and the session


async def _resume(process: Process, knock: Knock) -> bool:
    """Have a client take its session up again, as long as this connection serves it. Returns False if there
    is no such session."""
    with process.generation.in_use() as generation:
        session = await _named(process, generation, knock)
        if session is None:
            return False
        if generation.config.session.second_client == "refuse" and session.client.connection is not None:
            raise Refused(409, "session_in_use", "Another connection serves this session.")
    connection = await knock.accept(session)
    await session.parking.resume(connection, after_of(knock.request))
    log.info("session %s: its client is back", session.id)
    await session.parking.left(connection)
    return True


async def _named(process: Process, generation: Generation, knock: Knock) -> Session | None:
    """The session that the client names, if there is one of that principal's."""
    try:
        with trio.fail_after(generation.config.limits.connect_timeout_s):
            principal = await authenticate(process, generation, knock.request)
            place = place_of(knock.request, principal)
            session = None if place is None else process.places.find(place)
            if place is None or session is None:
                return None
            await process.persistence.confirm(place, session)
    except trio.TooSlowError:
        raise refusals.TIMED_OUT from None
    return session if session.ending is None else None


async def _serve(process: Process, generation: Generation, knock: Knock) -> Exception | None:
    """Returns what kept the session from being established: raised here, the nursery would wrap it."""
    made: list[Served] = []
    keepers: list[Keeper] = []
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        try:
            with process.establishing():
                establish = partial(_establish, process, generation, knock, nursery, made, keepers)
                await knock.unless_gone(establish)
            session = made[0].session
            place = place_of(knock.request, session.principal)
            if place is not None and session.limits.resume_window_s:
                session.parking.allow()
                session.parking.pausing.is_wanted = generation.config.session.while_parked == "pause"
            with process.registered(made[0]), process.places.kept(place, session):
                # From here on whoever takes something away finds it; what was taken before is asked for now.
                await require_standing(process, session.principal)
                await renew_limits(process, session)
                await _meet(session, await knock.accept(session), knock)
                for keeper in keepers:
                    session.start(keeper.run, session)
                await session.ended.wait()
                assert session.ending is not None
                for keeper in keepers:
                    # Before its client hears of the end, who may come back at once, and to another process.
                    await keeper.finish(session.ending)
        except _FAILURES as exc:
            failure = exc
        finally:
            for keeper in keepers:
                keeper.leave()
            for served in made:
                await served.session.close()
                process.totals.end(served.session)
                served.session.forget()
            nursery.cancel_scope.cancel()
    return None if failure is None else failure.with_traceback(None)


async def _meet(session: Session, connection: Connection, knock: Knock) -> None:
    """Have *connection* serve the client leg of a session that is new here."""
    if not session.client.was_attached:
        await session.attach_client(connection)
        return
    log.info("session %s: restored, its client is back", session.id)
    with suppress(ConnectionLost):  # then it waits for the next
        await session.parking.resume(connection, after_of(knock.request))


async def _establish(
    process: Process,
    generation: Generation,
    knock: Knock,
    nursery: trio.Nursery,
    made: list[Served],
    keepers: list[Keeper],
) -> None:
    """Authenticate, open, dial: all within one limit. *made* gets the session, for whoever closes it, and
    *keepers* who writes it down, if somebody does."""
    limits = generation.config.limits
    with trio.fail_after(limits.connect_timeout_s):
        await process.turn()
        principal = await authenticate(process, generation, knock.request)
        knock = _bound(knock, principal)
        before, knock = await _found(process, generation, knock, principal, keepers)
        upstream, model = choose(generation.upstreams, knock.model)
        _check_model(principal, knock.model, model)
        await process.turn()
        session = Session(
            f"sess_{secrets.token_hex(8)}" if before is None else before.session,
            principal,
            model,
            generation.chain,
            process.guard,
            nursery,
            limits=replace(generation.session_limits, held=process.held),
            session_type=TRANSCRIPTION if knock.intent == TRANSCRIPTION else "realtime",
            observer=process.observe,
            redact=process.redact,
            turn=process.turn,
            taps=process.taps,
            host_tools=process.tools,
            traceparent=_traceparent(knock.request) if before is None else before.traceparent,
        )
        process.totals.begin(session)
        served = Served(session, generation, knock.request.listener, upstream.name, trio.current_time())
        made.append(served)
        if before is not None:
            snapshot.restore(before, session)
        await session.open()
        await process.turn()
        reach = partial(_reach, process, served, knock, upstream)
        if generation.config.session.outage_s:
            session.replacement.redial = reach
        session.upstream_edge.retries = generation.config.session.on_cut == "retry"
        try:
            await session.attach_upstream(await reach())
        except ConnectionLost:
            raise DialFailed("the upstream closed the connection at once") from None
        if before is not None:
            await session.upstream_edge.learning.greeted.wait()  # of that the first event is made
        session.opened(knock.request.listener, served.upstream, knock.request.address)


async def _found(
    process: Process, generation: Generation, knock: Knock, principal: Principal, keepers: list[Keeper]
) -> tuple[Snapshot | None, Knock]:
    """The session that the client names, as another process has left it, and what that one was asked for."""
    place = place_of(knock.request, principal)
    if place is None or not generation.config.session.resume_window_s:
        return None, knock
    keeper = await process.persistence.keeper(principal, place)
    if keeper is None:
        return None, knock
    keepers.append(keeper)
    head = await keeper.find()
    if head is not None:
        await keeper.take_over(head)
        intent = TRANSCRIPTION if head.session.session_type == TRANSCRIPTION else None
        knock = replace(knock, model=head.model, intent=intent)
    keeper.model = knock.model
    return None if head is None else head.session, knock


async def _reach(process: Process, served: Served, knock: Knock, first: Upstream) -> Connection:
    """An upstream for the session: *first*, or another one that knows the model its client asked for."""
    session, generation = served.session, served.generation
    limits = generation.config.limits

    async def attempt(upstream: Upstream, model: str) -> Connection:
        dialer = partial(dial_upstream, limits=limits, upstream=upstream, reassembly=process.reassembly)
        return await session.connect(dial_request(upstream, session.principal, model, knock.intent), dialer)

    upstreams = failover.candidates(generation.upstreams, first, knock.model)
    limit_s = limits.connect_timeout_s
    with trio.fail_after(limit_s):
        chosen, connection = await failover.connect(upstreams, knock.model, attempt, process.rests, limit_s)
    if chosen is not first:
        log.info("session %s: served by upstream %s", session.id, chosen.name)
    served.dialled[connection] = chosen.name
    return connection


def _traceparent(request: ConnectRequest) -> str:
    """The trace the client wants to be part of, if it says so in the form of W3C's Trace Context, level 1."""
    values = request.headers.get("traceparent", ())
    return values[0] if len(values) == 1 and _TRACEPARENT.fullmatch(values[0]) else ""


def _bound(knock: Knock, principal: Principal) -> Knock:
    """The model and the kind of session that the principal is bound to count, whatever the handshake says."""
    if principal.session is None:
        return knock
    bound = dict(principal.session)
    intent = TRANSCRIPTION if session_type(bound) == TRANSCRIPTION else None
    return replace(knock, model=bound_model(bound) or knock.model, intent=intent)


def _as_refusal(failure: Exception) -> Exception:
    if isinstance(failure, DialRefused | DialFailed | DialTimeout):
        log.warning("upstream: %s", failure)
        return refusals.for_dial(failure)
    return refusals.TIMED_OUT if isinstance(failure, trio.TooSlowError) else failure


async def authenticate(process: Process, generation: Generation, request: ConnectRequest) -> Principal:
    """Who is calling. Raises ``Refused`` when no stage knows the caller, or it may not have its role."""
    principal = await _identify(process, generation, request)
    if request.role not in principal.roles:
        raise Refused(403, "role_not_allowed", f"This caller may not have the role {request.role}.")
    return principal


async def _identify(process: Process, generation: Generation, request: ConnectRequest) -> Principal:
    if process.listener(request.listener).open:
        return ANONYMOUS
    for call in generation.chain.calls("authenticate"):
        try:
            principal = await process.guard.call(call, request)
            if principal is not None and not isinstance(principal, Principal):
                raise process.guard.nonsense(call, principal)
        except HookFailed:
            raise Refused(503, "authentication_failed", "Nobody can be let in just now.") from None
        if principal is not None:
            return principal
    message = "No credentials: send your key as Authorization: Bearer."
    raise Refused(401, "invalid_api_key", message, {"WWW-Authenticate": "Bearer"})


def _check_model(principal: Principal, asked: str | None, model: str) -> None:
    if principal.models is not None and not {asked, model} & principal.models:
        raise Refused(403, "model_not_allowed", f"This key may not use the model {model!a}.")
