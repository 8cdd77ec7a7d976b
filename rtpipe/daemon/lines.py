"""The door for JSON lines: a hello, an answer, and then a session, a tap or a tool service."""

import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress

import msgspec
import trio

from rtpipe.api.errors import Refused
from rtpipe.api.event import HOST
from rtpipe.api.facts import Operated
from rtpipe.api.facts import Refused as RefusedFact
from rtpipe.api.principal import SESSION, TAP, TOOLS, Principal
from rtpipe.api.request import ConnectRequest
from rtpipe.daemon.establish import Knock, authenticate, serve
from rtpipe.daemon.messages import (
    VERSION,
    ErrorMessage,
    FromService,
    Hello,
    RefusedMessage,
    RegisterTools,
    Welcome,
)
from rtpipe.daemon.process import Process
from rtpipe.daemon.resume import AFTER_HEADER, HEADER
from rtpipe.daemon.standing import REVOKED, UNAUTHORIZED, require_standing
from rtpipe.daemon.taps import Tap
from rtpipe.daemon.tool_services import Service, ToolServices
from rtpipe.session.closing import GOING_AWAY
from rtpipe.session.session import Session
from rtpipe.transport.connection import Connection, ConnectionLost
from rtpipe.transport.jsonlines import JsonLines

log = logging.getLogger("rtpipe.daemon")

STOPPING = "the gateway is stopping"
ANSWER_LIMIT_S = 60.0
"""How long a session waits for its answer after its client has said that it will say no more."""


async def serve_lines(process: Process, lines: JsonLines) -> None:
    """Serve one JSON-lines connection of a listener until its end."""
    await _contain(process, lines, _serve)


async def serve_admin_lines(process: Process, lines: JsonLines) -> None:
    """Serve one JSON-lines connection of the admin socket, where who may open the file may watch."""
    await _contain(process, lines, _serve_admin)


async def _contain(
    process: Process, lines: JsonLines, work: Callable[[Process, JsonLines], Awaitable[None]]
) -> None:
    """Do *work*, and tell the peer how it ended."""
    try:
        try:
            await work(process, lines)
            await lines.close(1000, "")
        except Refused as refused:
            address = lines.peer.address
            process.record(
                RefusedFact(stage=HOST, code=refused.code, message=refused.message, address=address)
            )
            message = RefusedMessage(status=refused.status, code=refused.code, message=refused.message)
            await lines.send(msgspec.json.encode(message))
    except ConnectionLost:
        log.debug("%s is gone", lines.peer.address)


async def _serve(process: Process, lines: JsonLines) -> None:
    hello = await _hello(process, lines)
    request = _request(hello, lines)
    if hello.role == SESSION:
        await serve(process, _knock(hello, request, lines))
        return
    with process.generation.in_use() as generation:
        principal = await authenticate(process, generation, request)
    with process.guest(principal) as scope:
        await require_standing(process, principal)
        if hello.role == TAP:
            await show_tap(process, hello, principal.id, lines)
        else:
            assert hello.role == TOOLS
            await serve_tools(process.tools, principal, lines)
    if scope.cancelled_caught:
        await lines.close(UNAUTHORIZED, REVOKED)


async def _serve_admin(process: Process, lines: JsonLines) -> None:
    hello = await _hello(process, lines)
    if hello.role != TAP:
        raise Refused(404, "role_not_served", f"The admin socket serves the role tap, not {hello.role}.")
    if hello.session is not None and hello.session not in process.served:
        raise Refused(404, "no_such_session", f"There is no session {hello.session} in service.")
    await show_tap(process, hello, lines.peer.address, lines)


async def _hello(process: Process, lines: JsonLines) -> Hello:
    try:
        with process.crowd.arrival(), trio.fail_after(process.config.limits.handshake_timeout_s):
            hello = msgspec.json.decode(await lines.receive(), type=Hello)
    except trio.TooSlowError:
        raise Refused(408, "request_timeout", "The hello did not come in time.") from None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        why = str(exc) if isinstance(exc, msgspec.ValidationError) else "it is no JSON"
        raise Refused(400, "bad_hello", f"The first line must be a rtpipe.hello: {why}.") from None
    if hello.version != VERSION:
        raise Refused(400, "unknown_version", f"This gateway speaks version {VERSION} of JSON lines.")
    return hello


def _request(hello: Hello, lines: JsonLines) -> ConnectRequest:
    peer = lines.peer
    headers = {"authorization": [f"Bearer {hello.key}"]} if hello.key is not None else {}
    if hello.role == SESSION:
        told = {HEADER: hello.session, AFTER_HEADER: hello.after}
        headers |= {name: [value] for name, value in told.items() if value is not None}
    return ConnectRequest(
        path="",
        query={},
        headers=headers,
        address=peer.address,
        listener=peer.listener,
        role=hello.role,
        uid=peer.uid,
        gid=peer.gid,
    )


def _knock(hello: Hello, request: ConnectRequest, lines: JsonLines) -> Knock:
    async def accept(session: Session) -> Connection:
        async def finish_the_answer() -> None:
            with trio.move_on_after(ANSWER_LIMIT_S):
                await session.answered()

        lines.at_end_of_input = finish_the_answer
        welcome = Welcome(principal=session.principal.id, session=session.id)
        await lines.send(msgspec.json.encode(welcome))
        return lines

    return Knock(request, hello.model, hello.intent, accept, _at_once)


async def _at_once(work: Callable[[], Awaitable[None]]) -> None:
    # Whether the peer is still there shows when it is answered; setting up has a limit of its own.
    await work()


async def show_tap(process: Process, hello: Hello, principal: str, lines: JsonLines) -> None:
    """Welcome a tap and send what it sees until the peer is gone; a tap has nothing to say itself."""
    tap = Tap(hello, process.redact_event)
    by, what = lines.peer.address, hello.session or "all sessions"
    process.record(Operated(action="watch", by=by, what=what))
    # From before the welcome: what happens after it is seen.
    with process.tapped(tap):
        await lines.send(msgspec.json.encode(Welcome(principal=principal)))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_until_gone, lines, nursery.cancel_scope)
            await _show(tap, lines)
            nursery.cancel_scope.cancel()
        if tap.ended:
            await lines.close(GOING_AWAY, STOPPING)


async def _until_gone(lines: JsonLines, scope: trio.CancelScope) -> None:
    with suppress(ConnectionLost):
        while True:
            await lines.receive()
    scope.cancel()


async def _show(tap: Tap, lines: JsonLines) -> None:
    with suppress(ConnectionLost):
        while seen := await tap.next_lines():
            await lines.send_many(seen)


async def serve_tools(services: ToolServices, principal: Principal, lines: JsonLines) -> None:
    """Welcome a tool service and exchange calls and results until it is gone or has to go.

    No keepalive: its process is on this machine, so the kernel says at once when it is no more.
    """
    with services.connected(principal) as service:
        service.tell(Welcome(principal=principal.id))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_hear_service, services, service, lines, nursery.cancel_scope)
            await _tell_service(service, lines)
            nursery.cancel_scope.cancel()
        if service.ending is not None:
            await lines.close(*service.ending)


async def _tell_service(service: Service, lines: JsonLines) -> None:
    with suppress(ConnectionLost):
        while told := await service.next_lines():
            await lines.send_many(told)


async def _hear_service(
    services: ToolServices, service: Service, lines: JsonLines, scope: trio.CancelScope
) -> None:
    with suppress(ConnectionLost):
        while True:
            line = await lines.receive()
            try:
                said = msgspec.json.decode(line, type=FromService)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
                why = str(exc) if isinstance(exc, msgspec.ValidationError) else "it is no JSON"
                service.tell(ErrorMessage(code="bad_line", message=f"This line counts for nothing: {why}."))
                continue
            if isinstance(said, RegisterTools):
                services.register(service, said.tools)
            else:
                services.answered(service, said)
    scope.cancel()
