"""The HTTP routes of every listener."""

from rtpipe.api.errors import HookFailed, Refused
from rtpipe.api.request import Response
from rtpipe.chain.guard import HookCall
from rtpipe.daemon import refusals
from rtpipe.daemon.door import connect_request, serve_session
from rtpipe.daemon.establish import authenticate
from rtpipe.daemon.generation import Generation
from rtpipe.daemon.hooks import HEALTH, READINESS, REALTIME, ask_health
from rtpipe.daemon.process import Process
from rtpipe.protocol.errors import http_error
from rtpipe.transport.exchange import Exchange
from rtpipe.transport.http import RequestRefused

CLIENT_SECRETS = "/v1/realtime/client_secrets"
_ELSEWHERE = {
    "/v1/realtime/calls": "WebRTC and SIP calls go to OpenAI directly",
    "/v1/realtime/translations": "translation sessions are another protocol",
    "/v1/live": "GPT-Live is another protocol",
}
BODY_BYTES = 64 * 1024


class Routes:
    """Our own routes and those that the plugins in service add."""

    def __init__(self, process: Process) -> None:
        self._process = process

    async def handle(self, exchange: Exchange) -> None:
        """Answer one request."""
        path = exchange.request.path
        if path in REALTIME:
            await self._realtime(exchange)
        elif path == HEALTH:
            await self._health(exchange)
        elif path == READINESS:
            ready = not self._process.stopping
            await exchange.respond(200 if ready else 503, {"ready": ready})
        else:
            with self._process.generation.in_use() as generation:
                await self._plugin_route(generation, exchange)

    async def _realtime(self, exchange: Exchange) -> None:
        if exchange.request.is_upgrade:
            await serve_session(self._process, exchange)
            return
        message = "This address speaks WebSocket: connect with ws:// or wss://."
        await exchange.respond(426, http_error(426, message, "upgrade_required"), {"Upgrade": "websocket"})

    async def _health(self, exchange: Exchange) -> None:
        with self._process.generation.in_use() as generation:
            found = await ask_health(generation.chain, self._process.guard)
        ok = all(health.ok for health in found.values())
        sentences: dict[str, object] = {stage: health.sentence for stage, health in found.items()}
        await exchange.respond(200 if ok else 503, {"ok": ok, "plugins": sentences})

    async def _plugin_route(self, generation: Generation, exchange: Exchange) -> None:
        found = generation.routes.get((exchange.request.method, exchange.request.path))
        if found is None:
            raise _not_found(exchange.request.path)
        call, route = found
        request = connect_request(exchange.request)
        try:
            if route.access != "open":
                await authenticate(self._process, generation, request)
            body = await exchange.read_body(BODY_BYTES)
            answer: Response = await self._process.guard.call(call, request, body)
            if not isinstance(answer, Response):
                raise self._process.guard.nonsense(call, answer)
            await self._pass_on(exchange, call, answer)
        except Refused as refused:
            error = http_error(refused.status, refused.message, refused.code)
            await exchange.respond(refused.status, error, refused.headers)
        except HookFailed:
            error = http_error(500, "The plugin that serves this address failed.", "plugin_failed")
            await exchange.respond(500, error)

    async def _pass_on(self, exchange: Exchange, call: HookCall, answer: Response) -> None:
        try:
            content = answer.body if isinstance(answer.body, bytes | dict) else str(answer.body).encode()
            await exchange.respond(answer.status, content, dict(answer.headers))
        except Exception as exc:  # noqa: BLE001 - a status, header or body that HTTP or JSON cannot carry
            why = f"an answer that cannot be sent: {type(exc).__name__}"
            raise self._process.guard.failed(call.stage, call.hook, "nonsense", why) from None


def _not_found(path: str) -> RequestRefused:
    if path == CLIENT_SECRETS:
        message = "No plugin of this gateway mints client secrets: connect with your own key."
    else:
        reason = next((why for known, why in _ELSEWHERE.items() if f"{path}/".startswith(f"{known}/")), None)
        message = (
            f"{reason}; {refusals.NOT_FOR_US} at /v1/realtime."
            if reason
            else (f"There is nothing here; {refusals.NOT_FOR_US} at /v1/realtime.")
        )
    return RequestRefused(404, "not_found", message)
