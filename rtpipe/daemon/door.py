"""The door for WebSockets: what their handshakes may ask for, and refusals their clients can read."""

import logging
import secrets

from rtpipe.api.errors import Refused
from rtpipe.api.event import HOST, Event
from rtpipe.api.facts import Refused as RefusedFact
from rtpipe.api.request import ConnectRequest
from rtpipe.daemon import refusals
from rtpipe.daemon.beta import BetaConnection, asks_for_beta
from rtpipe.daemon.config import Listen
from rtpipe.daemon.establish import Knock, serve
from rtpipe.daemon.process import Process
from rtpipe.daemon.standing import UNAUTHORIZED
from rtpipe.protocol import events
from rtpipe.protocol.errors import http_error
from rtpipe.session.session import Session
from rtpipe.transport.connection import Connection, ConnectionLost
from rtpipe.transport.exchange import ClientGone, Exchange
from rtpipe.transport.http import Request

log = logging.getLogger("rtpipe.daemon")

SUBPROTOCOL = "realtime"
KEY_SUBPROTOCOL = "openai-insecure-api-key."
DEPLOYMENT = "deployment"
"""What clients of Azure's preview call the model in their query."""
TRY_AGAIN_LATER = 1013
FOREIGN_ORIGIN = "origin_not_allowed"


async def serve_session(process: Process, exchange: Exchange) -> None:
    """Serve one client of the Realtime protocol until its session ends."""
    try:
        _check_query(exchange.request)
        check_origin(process.listener(exchange.request.peer.listener), exchange.request)
        await serve(process, _knock(exchange))
    except Refused as refused:
        address = exchange.request.peer.address
        process.record(RefusedFact(stage=HOST, code=refused.code, message=refused.message, address=address))
        await _refuse(exchange, refused)
    except (ClientGone, ConnectionLost):
        log.debug("%s left during its handshake", exchange.request.peer.address)


def _knock(exchange: Exchange) -> Knock:
    request = exchange.request
    offered = SUBPROTOCOL if SUBPROTOCOL in request.subprotocols else None

    async def accept(_: Session) -> Connection:
        connection = await exchange.accept(offered)
        return BetaConnection(connection) if asks_for_beta(request) else connection

    return Knock(
        connect_request(request),
        request.param("model") or request.param(DEPLOYMENT),
        request.param("intent"),
        accept,
        exchange.unless_gone,
    )


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
        subject=request.peer.subject,
    )


def _check_query(request: Request) -> None:
    if request.param("call_id") is not None:
        message = f"A call_id belongs to WebRTC and SIP calls; {refusals.NOT_FOR_US}."
        raise Refused(404, "call_id_not_found", message)


def check_origin(listener: Listen, request: Request) -> None:
    """See that no page sent *request* which may not. Raises ``Refused``."""
    # A browser sends one; of two, each might be what somebody else judges by.
    if "*" not in listener.origins and not set(request.headers.all("origin")) <= set(listener.origins):
        message = "Pages of this origin may not connect; the operator lists allowed origins for the listener."
        raise Refused(403, FOREIGN_ORIGIN, message)


async def _refuse(exchange: Exchange, refused: Refused) -> None:
    """Say no: in HTTP, or to a browser, which cannot read that, over the WebSocket.

    A page that may not connect at all is told nothing that it could read.
    """
    offered = exchange.request.subprotocols
    with_key = any(name.startswith(KEY_SUBPROTOCOL) for name in offered)
    if not with_key or refused.code == FOREIGN_ORIGIN:
        body = http_error(refused.status, refused.message, refused.code)
        await exchange.respond(refused.status, body, refused.headers)
        return
    error = events.error_event(refused.code, refused.message, own_id=f"rtp_{secrets.token_hex(8)}")
    try:
        connection = await exchange.accept(SUBPROTOCOL if SUBPROTOCOL in offered else None)
        await connection.send(Event(error).payload)
        passes = refused.status in (408, 429) or refused.status >= 500
        code = TRY_AGAIN_LATER if passes else UNAUTHORIZED
        await connection.close(code, f"invalid_request_error.{refused.code}")
    except ConnectionLost:
        log.debug("%s left before it heard the refusal", exchange.request.peer.address)
