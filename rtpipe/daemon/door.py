"""The door: from a client's handshake to a session in service, or to a refusal it can read."""

import logging
import secrets
from functools import partial

import trio

from rtpipe.api.errors import HookFailed, Refused
from rtpipe.api.event import HOST, Event
from rtpipe.api.facts import Refused as RefusedFact
from rtpipe.api.principal import ANONYMOUS, Principal
from rtpipe.api.request import ConnectRequest
from rtpipe.daemon import refusals
from rtpipe.daemon.config import Listen
from rtpipe.daemon.process import Process
from rtpipe.daemon.upstreams import TRANSCRIPTION, choose, dial_request, dial_upstream
from rtpipe.protocol import events
from rtpipe.protocol.errors import http_error
from rtpipe.session.session import Session
from rtpipe.transport.connection import ConnectionLost
from rtpipe.transport.dialer import DialFailed, DialRefused, DialTimeout
from rtpipe.transport.exchange import ClientGone, Exchange
from rtpipe.transport.http import Request

log = logging.getLogger("rtpipe.daemon")

SUBPROTOCOL = "realtime"
KEY_SUBPROTOCOL = "openai-insecure-api-key."
UNAUTHORIZED = 3000
TRY_AGAIN_LATER = 1013


async def serve_session(process: Process, exchange: Exchange) -> None:
    """Serve one client of the Realtime protocol until its session ends."""
    try:
        _check_query(exchange.request)
        _check_origin(process.listener(exchange), exchange.request)
        with process.room():
            failure = await _serve(process, exchange)
        if failure is not None:
            raise _as_refusal(failure)
    except Refused as refused:
        address = exchange.request.peer.address
        process.record(RefusedFact(stage=HOST, code=refused.code, message=refused.message, address=address))
        await _refuse(exchange, refused)
    except (ClientGone, ConnectionLost):
        log.debug("%s left during its handshake", exchange.request.peer.address)


async def _serve(process: Process, exchange: Exchange) -> Exception | None:
    """Returns what kept the session from being established: raised here, the nursery would wrap it."""
    sessions: list[Session] = []
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        try:
            with process.establishing():
                await exchange.unless_gone(partial(_establish, process, exchange, nursery, sessions))
            await _attend(process, exchange, sessions[0])
        except (Refused, DialRefused, DialFailed, DialTimeout, trio.TooSlowError, ClientGone) as exc:
            failure = exc
        except ConnectionLost as exc:
            failure = exc
        finally:
            for session in sessions:
                await session.close()
            nursery.cancel_scope.cancel()
    return failure


async def _establish(
    process: Process, exchange: Exchange, nursery: trio.Nursery, sessions: list[Session]
) -> None:
    """Authenticate, open, dial: all within one limit. *sessions* gets the session, for whoever closes it."""
    request = exchange.request
    with trio.fail_after(process.config.limits.connect_timeout_s):
        principal = await authenticate(process, connect_request(request), process.listener(exchange))
        asked, intent = request.param("model"), request.param("intent")
        upstream, model = choose(process.upstreams, asked)
        _check_model(principal, asked, model)
        session = Session(
            f"sess_{secrets.token_hex(8)}",
            principal,
            model,
            process.chain,
            process.guard,
            nursery,
            limits=process.session_limits,
            session_type=TRANSCRIPTION if intent == TRANSCRIPTION else "realtime",
            observer=process.observer,
        )
        sessions.append(session)
        await session.open()
        try:
            dialer = partial(dial_upstream, limits=process.config.limits, upstream=upstream)
            await session.dial(dial_request(upstream, model, intent), dialer)
        except ConnectionLost:
            raise DialFailed("the upstream closed the connection at once") from None
        session.opened(request.peer.listener, upstream.name)


async def _attend(process: Process, exchange: Exchange, session: Session) -> None:
    """Answer the client's handshake and let the session run to its end."""
    with process.registered(session):
        offered = exchange.request.subprotocols
        await session.attach_client(await exchange.accept(SUBPROTOCOL if SUBPROTOCOL in offered else None))
        await session.ended.wait()


def _as_refusal(failure: Exception) -> Exception:
    if isinstance(failure, DialRefused | DialFailed | DialTimeout):
        log.warning("upstream: %s", failure)
        return refusals.for_dial(failure)
    return refusals.TIMED_OUT if isinstance(failure, trio.TooSlowError) else failure


async def authenticate(process: Process, request: ConnectRequest, listener: Listen) -> Principal:
    """Who is calling. Raises ``Refused`` when no stage knows the caller."""
    if listener.open:
        return ANONYMOUS
    for call in process.chain.calls("authenticate"):
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


def connect_request(request: Request) -> ConnectRequest:
    """The handshake as plugins see it."""
    query: dict[str, list[str]] = {}
    for key, value in request.query:
        query.setdefault(key, []).append(value)
    headers: dict[str, list[str]] = {}
    for name, value in request.headers:
        headers.setdefault(name, []).append(value)
    return ConnectRequest(
        path=request.path,
        query=query,
        headers=headers,
        subprotocols=request.subprotocols,
        address=request.peer.address,
        listener=request.peer.listener,
        uid=request.peer.uid,
        gid=request.peer.gid,
    )


def _check_query(request: Request) -> None:
    if request.param("call_id") is not None:
        message = f"A call_id belongs to WebRTC and SIP calls; {refusals.NOT_FOR_US}."
        raise Refused(404, "call_id_not_found", message)


def _check_origin(listener: Listen, request: Request) -> None:
    origin = request.headers.get("origin")
    if origin is not None and "*" not in listener.origins and origin not in listener.origins:
        message = "Pages of this origin may not connect; the operator lists allowed origins for the listener."
        raise Refused(403, "origin_not_allowed", message)


def _check_model(principal: Principal, asked: str | None, model: str) -> None:
    if principal.models is not None and not {asked, model} & principal.models:
        raise Refused(403, "model_not_allowed", f"This key may not use the model {model!a}.")


async def _refuse(exchange: Exchange, refused: Refused) -> None:
    """Say no: in HTTP, or to a browser, which cannot read that, over the WebSocket."""
    offered = exchange.request.subprotocols
    if not any(name.startswith(KEY_SUBPROTOCOL) for name in offered):
        body = http_error(refused.status, refused.message, refused.code)
        await exchange.respond(refused.status, body, refused.headers)
        return
    error = events.error_event(refused.code, refused.message, own_id=f"rtp_{secrets.token_hex(8)}")
    try:
        connection = await exchange.accept(SUBPROTOCOL if SUBPROTOCOL in offered else None)
        await connection.send(Event(error).payload)
        code = UNAUTHORIZED if refused.status in (401, 403) else TRY_AGAIN_LATER
        await connection.close(code, f"invalid_request_error.{refused.code}")
    except ConnectionLost:
        log.debug("%s left before it heard the refusal", exchange.request.peer.address)
