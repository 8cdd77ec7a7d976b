"""The admin socket: what runs, and a reload. The right to it is the right to open its file."""

from collections import Counter
from collections.abc import Awaitable, Callable

import msgspec
import trio
from prometheus_client import CollectorRegistry

from rtpipe.api.errors import ConfigError
from rtpipe.api.event import HOST
from rtpipe.api.facts import Operated
from rtpipe.daemon import metrics
from rtpipe.daemon.hooks import DRAIN, METRICS, PLUGINS, RELOAD, SESSIONS, ask_health
from rtpipe.daemon.plugin_routes import serve_plugin_route
from rtpipe.daemon.process import Process, Served
from rtpipe.daemon.reload import Reloader
from rtpipe.daemon.totals import DIRECTIONS, bytes_of, counts_of
from rtpipe.session.client_edge import POLICY_VIOLATION
from rtpipe.session.closing import Ending
from rtpipe.transport.exchange import Exchange
from rtpipe.transport.http import RequestRefused

Json = dict[str, object]


class Admin:
    """The HTTP routes of the admin socket. Answers are JSON, but for the metrics."""

    def __init__(self, process: Process, reloader: Reloader) -> None:
        self._process = process
        self._reloader = reloader
        self._metrics = metrics.registry(process)
        self._routes: dict[str, tuple[str, Callable[[Exchange], Awaitable[None]]]] = {
            SESSIONS: ("GET", self._sessions),
            PLUGINS: ("GET", self._plugins),
            METRICS: ("GET", self._show_metrics),
            RELOAD: ("POST", self._reload),
            DRAIN: ("POST", self._drain),
        }

    async def handle(self, exchange: Exchange) -> None:
        """Answer one request."""
        path = exchange.request.path
        method, answer = self._routes.get(path, ("GET or DELETE", self._session))
        if answer == self._session and not path.startswith(f"{SESSIONS}/"):
            with self._process.generation.in_use() as generation:
                if await serve_plugin_route(self._process, generation, exchange, on_admin_socket=True):
                    return
            raise RequestRefused(404, "not_found", f"There is nothing here; see {', '.join(self._routes)}.")
        if exchange.request.method not in method.split(" or "):
            allow = {"Allow": method.replace(" or ", ", ")}
            raise RequestRefused(405, "method_not_allowed", f"{path} answers to {method}.", allow)
        await answer(exchange)

    async def _sessions(self, exchange: Exchange) -> None:
        sessions = [self._about(served) for served in self._process.served.values()]
        await exchange.respond(200, {"sessions": sessions})

    async def _session(self, exchange: Exchange) -> None:
        name = exchange.request.path.removeprefix(f"{SESSIONS}/")
        served = self._process.served.get(name)
        if served is None:
            raise RequestRefused(404, "no_such_session", "There is no session of this id in service.")
        if exchange.request.method == "DELETE":
            self._operated(exchange, "kill", name)
            served.session.end(Ending(POLICY_VIOLATION, "ended by an operator", HOST))
            await exchange.respond(200, {"ended": name})
            return
        asked = self._process.generation.redactor.json(served.session.configuration.asked)
        types: dict[str, Json] = {direction: {} for direction in DIRECTIONS}
        for (direction, kind), count in counts_of(served.session).items():
            types[direction][kind or "other"] = {"events": count.frames, "bytes": count.bytes}
        await exchange.respond(200, {**self._about(served), "types": types, "asked": asked})

    def _about(self, served: Served) -> Json:
        session = served.session
        lanes = {direction: session.lane(direction) for direction in DIRECTIONS}
        return {
            "id": session.id,
            "principal": session.principal.id,
            "model": session.model,
            "upstream": served.upstream,
            "listener": served.listener,
            "age_s": round(trio.current_time() - served.since_s, 3),
            "client_attached": session.client.connection is not None,
            "on_old_chain": session.chain is not self._process.chain,
            "events": {way: {"came": lane.tally.came, **lane.tally.fates} for way, lane in lanes.items()},
            "waiting": {way: lane.waiting for way, lane in lanes.items()},
            "bytes": {way: bytes_of(session, way) for way in DIRECTIONS},
        }

    async def _plugins(self, exchange: Exchange) -> None:
        guard = self._process.guard
        failures: dict[str, Counter[str]] = {}
        for (stage, hook, _), count in guard.failures.items():
            failures.setdefault(stage, Counter())[hook] += count
        with self._process.generation.in_use() as generation:
            health = await ask_health(generation.chain, guard)
        plugins: list[Json] = [
            {
                "stage": stage.name,
                "plugin": stage.kind,
                "on_error": stage.on_error,
                "failures": failures.get(stage.name, {}),
                "health": health.get(stage.name),
            }
            for stage in generation.chain.stages
        ]
        await exchange.respond(200, {"plugins": plugins})

    async def _reload(self, exchange: Exchange) -> None:
        try:
            report = await self._reloader.reload()
        except ConfigError as exc:
            raise RequestRefused(422, "not_reloaded", str(exc)) from None
        self._operated(exchange, "reload", ", ".join(report.changed) or "nothing")
        await exchange.respond(200, msgspec.to_builtins(report))

    async def _drain(self, exchange: Exchange) -> None:
        self._operated(exchange, "drain", "")
        sessions = len(self._process.served)
        if not self._process.stopping:
            self._process.stop("the admin socket")
        await exchange.respond(200, {"sessions": sessions})

    async def _show_metrics(self, exchange: Exchange) -> None:
        await show_metrics(exchange, self._metrics)

    def _operated(self, exchange: Exchange, action: str, what: str) -> None:
        self._process.record(Operated(action=action, by=exchange.request.peer.address, what=what))


async def show_metrics(exchange: Exchange, registry: CollectorRegistry) -> None:
    """Answer with the metrics as Prometheus reads them."""
    await exchange.respond(200, metrics.text(registry), {"Content-Type": metrics.CONTENT_TYPE})
