"""The HTTP routes of every listener."""

from rtpipe.daemon import metrics, refusals
from rtpipe.daemon.admin import show_metrics
from rtpipe.daemon.door import serve_session
from rtpipe.daemon.hooks import HEALTH, METRICS, READINESS, REALTIME, ask_health
from rtpipe.daemon.plugin_routes import serve_plugin_route
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


class Routes:
    """Our own routes and those that the plugins in service add."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._metrics = metrics.registry(process)

    async def handle(self, exchange: Exchange) -> None:
        """Answer one request."""
        path = exchange.request.path
        if path in REALTIME:
            await self._realtime(exchange)
        elif path == HEALTH:
            await self._health(exchange)
        elif path == METRICS and self._process.listener(exchange.request.peer.listener).metrics:
            await show_metrics(exchange, self._metrics)
        elif path == READINESS:
            ready = not self._process.stopping
            await exchange.respond(200 if ready else 503, {"ready": ready})
        else:
            with self._process.generation.in_use() as generation:
                if not await serve_plugin_route(self._process, generation, exchange):
                    raise _not_found(path)

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
