"""The HTTP routes of every listener."""

import logging
from collections.abc import Sequence

from rtpipe.api.errors import ConfigError, HookFailed, Refused
from rtpipe.api.request import Response, Route
from rtpipe.chain.guard import HookCall
from rtpipe.daemon import refusals
from rtpipe.daemon.door import connect_request, serve_session
from rtpipe.daemon.establish import authenticate
from rtpipe.daemon.process import Process
from rtpipe.protocol.errors import http_error
from rtpipe.transport.exchange import Exchange
from rtpipe.transport.http import RequestRefused

log = logging.getLogger("rtpipe.daemon")

REALTIME = frozenset({"/v1/realtime", "/realtime", "/openai/v1/realtime", "/openai/realtime"})
CLIENT_SECRETS = "/v1/realtime/client_secrets"
_ELSEWHERE = {
    "/v1/realtime/calls": "WebRTC and SIP calls go to OpenAI directly",
    "/v1/realtime/translations": "translation sessions are another protocol",
    "/v1/live": "GPT-Live is another protocol",
}
ROUTE_LIMIT_S = 10.0
BODY_BYTES = 64 * 1024


class Routes:
    """Our own routes and those that plugins add."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._of_plugins: dict[tuple[str, str], tuple[HookCall, Route]] = {}

    async def collect(self) -> None:
        """Ask the ``routes`` hooks. Raises ``ConfigError`` naming the plugin for a route that is taken."""
        for call in self._process.chain.calls("routes"):
            try:
                routes: Sequence[Route] = await self._process.guard.call(call)
            except HookFailed as exc:
                raise ConfigError(f"plugin {call.stage}: its routes cannot be had: {exc.why}") from None
            for route in routes:
                self._add(call, route)

    def _add(self, call: HookCall, route: Route) -> None:
        key = (route.method, route.path)
        if route.path in REALTIME or route.path in ("/healthz", "/readyz") or key in self._of_plugins:
            raise ConfigError(f"plugin {call.stage}: the route {route.method} {route.path} is taken")
        handler = HookCall(
            call.stage, f"route {route.path}", route.handler, True, ROUTE_LIMIT_S, call.on_error
        )
        self._of_plugins[key] = (handler, route)

    async def handle(self, exchange: Exchange) -> None:
        """Answer one request."""
        path = exchange.request.path
        if path in REALTIME:
            await self._realtime(exchange)
        elif path == "/healthz":
            await self._health(exchange)
        elif path == "/readyz":
            ready = not self._process.stopping
            await exchange.respond(200 if ready else 503, {"ready": ready})
        elif (exchange.request.method, path) in self._of_plugins:
            await self._plugin_route(exchange)
        else:
            await _not_found(exchange)

    async def _realtime(self, exchange: Exchange) -> None:
        if exchange.request.is_upgrade:
            await serve_session(self._process, exchange)
            return
        message = "This address speaks WebSocket: connect with ws:// or wss://."
        await exchange.respond(426, http_error(426, message, "upgrade_required"), {"Upgrade": "websocket"})

    async def _health(self, exchange: Exchange) -> None:
        plugins: dict[str, object] = {}
        healthy = True
        for call in self._process.chain.calls("health"):
            try:
                health = await self._process.guard.call(call)
                plugins[call.stage] = health.sentence
                healthy = healthy and health.ok
            except HookFailed:
                plugins[call.stage] = "does not answer"
                healthy = False
        await exchange.respond(200 if healthy else 503, {"ok": healthy, "plugins": plugins})

    async def _plugin_route(self, exchange: Exchange) -> None:
        call, route = self._of_plugins[exchange.request.method, exchange.request.path]
        request = connect_request(exchange.request)
        try:
            if route.access != "open":
                await authenticate(self._process, request)
            body = await exchange.read_body(BODY_BYTES)
            answer: Response = await self._process.guard.call(call, request, body)
            content = answer.body if isinstance(answer.body, bytes | dict) else str(answer.body).encode()
            await exchange.respond(answer.status, content, dict(answer.headers))
        except Refused as refused:
            error = http_error(refused.status, refused.message, refused.code)
            await exchange.respond(refused.status, error, refused.headers)
        except HookFailed:
            error = http_error(500, "The plugin that serves this address failed.", "plugin_failed")
            await exchange.respond(500, error)


async def _not_found(exchange: Exchange) -> None:
    path = exchange.request.path
    if path == CLIENT_SECRETS:
        message = "No plugin of this gateway mints client secrets: connect with your own key."
    else:
        reason = next((why for known, why in _ELSEWHERE.items() if f"{path}/".startswith(f"{known}/")), None)
        message = (
            f"{reason}; {refusals.NOT_FOR_US} at /v1/realtime."
            if reason
            else (f"There is nothing here; {refusals.NOT_FOR_US} at /v1/realtime.")
        )
    raise RequestRefused(404, "not_found", message)
