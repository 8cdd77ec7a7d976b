"""The door for JSON lines: a hello, an answer, and then a session or a tap."""

import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress

import msgspec
import trio

from rtpipe.api.errors import Refused
from rtpipe.api.event import HOST
from rtpipe.api.facts import Refused as RefusedFact
from rtpipe.api.principal import SESSION, TAP
from rtpipe.api.request import ConnectRequest
from rtpipe.daemon.establish import Knock, authenticate, serve
from rtpipe.daemon.messages import VERSION, Hello, RefusedMessage, Welcome
from rtpipe.daemon.process import Process
from rtpipe.daemon.taps import Tap
from rtpipe.session.closing import GOING_AWAY
from rtpipe.session.session import Session
from rtpipe.transport.connection import Connection, ConnectionLost
from rtpipe.transport.jsonlines import JsonLines

log = logging.getLogger("rtpipe.daemon")

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
    elif hello.role == TAP:
        with process.generation.in_use() as generation:
            principal = await authenticate(process, generation, request)
        await show_tap(process, hello, principal.id, lines)
    else:
        raise Refused(404, "role_not_served", f"No stage of this gateway serves the role {hello.role}.")


async def _serve_admin(process: Process, lines: JsonLines) -> None:
    hello = await _hello(process, lines)
    if hello.role != TAP:
        raise Refused(404, "role_not_served", f"The admin socket serves the role tap, not {hello.role}.")
    if hello.session is not None and hello.session not in process.served:
        raise Refused(404, "no_such_session", f"There is no session {hello.session} in service.")
    await show_tap(process, hello, lines.peer.address, lines)


async def _hello(process: Process, lines: JsonLines) -> Hello:
    try:
        with trio.fail_after(process.config.limits.handshake_timeout_s):
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
    tap = Tap(hello)
    # From before the welcome: what happens after it is seen.
    with process.tapped(tap):
        await lines.send(msgspec.json.encode(Welcome(principal=principal)))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_until_gone, lines, nursery.cancel_scope)
            await _show(tap, lines)
            nursery.cancel_scope.cancel()
        if tap.ended:
            await lines.close(GOING_AWAY, "the gateway is stopping")


async def _until_gone(lines: JsonLines, scope: trio.CancelScope) -> None:
    with suppress(ConnectionLost):
        while True:
            await lines.receive()
    scope.cancel()


async def _show(tap: Tap, lines: JsonLines) -> None:
    with suppress(ConnectionLost):
        while seen := await tap.next_lines():
            await lines.send_many(seen)
