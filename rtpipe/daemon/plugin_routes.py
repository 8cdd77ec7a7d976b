"""Serving the HTTP routes of plugins: who may call them, and what becomes of their answers."""

from dataclasses import replace

from rtpipe.api.errors import HookFailed, Refused
from rtpipe.api.event import HOST
from rtpipe.api.facts import Refused as RefusedFact
from rtpipe.api.principal import ADMIN
from rtpipe.api.request import ConnectRequest, Response, Route
from rtpipe.chain.guard import HookCall
from rtpipe.daemon.door import check_origin, connect_request
from rtpipe.daemon.establish import authenticate
from rtpipe.daemon.generation import Generation
from rtpipe.daemon.process import Process
from rtpipe.protocol.errors import http_error
from rtpipe.transport.exchange import Exchange

BODY_BYTES = 64 * 1024


async def serve_plugin_route(
    process: Process, generation: Generation, exchange: Exchange, *, on_admin_socket: bool = False
) -> bool:
    """Answer a request for a plugin's route; returns False where there is none.

    The admin socket has those for admins, and asks nobody who he is: whoever may open it is one.
    """
    found = generation.routes.get((exchange.request.method, exchange.request.path))
    if found is None or (on_admin_socket and found[1].access != ADMIN):
        return False
    call, route = found
    request = connect_request(exchange.request)
    try:
        if not on_admin_socket:
            check_origin(process.listener(request.listener), exchange.request)
            await _admit(process, generation, route, request)
        body = await exchange.read_body(BODY_BYTES)
        answer: Response = await process.guard.call(call, request, body)
        if not isinstance(answer, Response):
            raise process.guard.nonsense(call, answer)
        await _pass_on(process, exchange, call, answer)
    except Refused as refused:
        fact = RefusedFact(
            stage=HOST, code=refused.code, message=refused.message, address=exchange.request.peer.address
        )
        process.record(fact)
        error = http_error(refused.status, refused.message, refused.code)
        await exchange.respond(refused.status, error, refused.headers)
    except HookFailed:
        error = http_error(500, "The plugin that serves this address failed.", "plugin_failed")
        await exchange.respond(500, error)
    return True


async def _admit(process: Process, generation: Generation, route: Route, request: ConnectRequest) -> None:
    if route.access == ADMIN:
        await authenticate(process, generation, replace(request, role=ADMIN))
    elif route.access != "open":
        await authenticate(process, generation, request)


async def _pass_on(process: Process, exchange: Exchange, call: HookCall, answer: Response) -> None:
    try:
        content = answer.body if isinstance(answer.body, bytes | dict) else str(answer.body).encode()
        await exchange.respond(answer.status, content, dict(answer.headers))
    except Exception as exc:  # noqa: BLE001 - a status, header or body that HTTP or JSON cannot carry
        why = f"an answer that cannot be sent: {type(exc).__name__}"
        raise process.guard.failed(call.stage, call.hook, "nonsense", why) from None
