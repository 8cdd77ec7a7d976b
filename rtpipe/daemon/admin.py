"""The admin socket: what runs, and a reload. The right to it is the right to open its file."""

from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
import trio
from prometheus_client import CollectorRegistry

from rtpipe.api.errors import ConfigError, HookFailed
from rtpipe.api.event import HOST
from rtpipe.api.facts import Operated
from rtpipe.api.store import StoreError
from rtpipe.daemon import metrics
from rtpipe.daemon.admin_api import (
    OPERATIONS,
    SESSION,
    Draining,
    Ended,
    Fates,
    Forgotten,
    LossShown,
    OneSession,
    Passed,
    PluginList,
    PluginShown,
    SessionList,
    SessionShown,
    Types,
    Ways,
)
from rtpipe.daemon.hooks import (
    DRAIN,
    FORGET,
    METRICS,
    PLUGINS,
    RELOAD,
    SESSIONS,
    ask_health,
    ask_to_forget,
)
from rtpipe.daemon.plugin_routes import serve_plugin_route
from rtpipe.daemon.process import Process, Served
from rtpipe.daemon.reload import Reloader
from rtpipe.daemon.totals import DIRECTIONS, bytes_of, counts_of
from rtpipe.session.client_edge import POLICY_VIOLATION
from rtpipe.session.closing import Ending
from rtpipe.transport.exchange import Exchange
from rtpipe.transport.http import RequestRefused


class Admin:
    """The HTTP routes of the admin socket. Answers are JSON, but for the metrics."""

    def __init__(self, process: Process, reloader: Reloader) -> None:
        self._process = process
        self._reloader = reloader
        self._metrics = metrics.registry(process)
        answers: dict[tuple[str, str], Callable[[Exchange], Awaitable[None]]] = {
            ("GET", SESSIONS): self._sessions,
            ("GET", SESSION): self._session,
            ("DELETE", SESSION): self._kill,
            ("POST", FORGET): self._forget,
            ("GET", PLUGINS): self._plugins,
            ("GET", METRICS): self._show_metrics,
            ("POST", RELOAD): self._reload,
            ("POST", DRAIN): self._drain,
        }
        self._routes: dict[str, dict[str, Callable[[Exchange], Awaitable[None]]]] = {}
        for method, path in OPERATIONS:
            self._routes.setdefault(path, {})[method] = answers[method, path]

    async def handle(self, exchange: Exchange) -> None:
        """Answer one request."""
        path = exchange.request.path
        methods = self._routes.get(SESSION if path.startswith(f"{SESSIONS}/") else path)
        if methods is None:
            with self._process.generation.in_use() as generation:
                if await serve_plugin_route(self._process, generation, exchange, on_admin_socket=True):
                    return
            raise RequestRefused(404, "not_found", f"There is nothing here; see {', '.join(self._routes)}.")
        answer = methods.get(exchange.request.method)
        if answer is None:
            allow = {"Allow": ", ".join(methods)}
            raise RequestRefused(
                405, "method_not_allowed", f"{path} answers to {' or '.join(methods)}.", allow
            )
        await answer(exchange)

    async def _sessions(self, exchange: Exchange) -> None:
        sessions = [SessionShown(**_about(self._process, each)) for each in self._process.served.values()]
        await _respond(exchange, SessionList(sessions=sessions))

    async def _session(self, exchange: Exchange) -> None:
        served = self._named(exchange)
        redactor = self._process.generation.redactor
        types: dict[str, dict[str, Passed]] = {direction: {} for direction in DIRECTIONS}
        for (direction, kind), count in counts_of(served.session).items():
            types[direction][redactor.text(kind) or "other"] = Passed(events=count.frames, bytes=count.bytes)
        asked = redactor.json(served.session.configuration.asked)
        losses = [
            LossShown(time=datetime.fromtimestamp(loss.time_s, UTC), leg=loss.leg, what=loss.what)
            for loss in served.session.sums.losses
        ]
        about = _about(self._process, served)
        await _respond(exchange, OneSession(**about, types=Types(**types), asked=asked, losses=losses))

    async def _kill(self, exchange: Exchange) -> None:
        session = self._named(exchange).session
        self._operated(exchange, "kill", session.id)
        session.end(Ending(POLICY_VIOLATION, "ended by an operator", HOST))
        await _respond(exchange, Ended(ended=session.id))

    async def _forget(self, exchange: Exchange) -> None:
        name, process = exchange.request.param("name"), self._process
        if not name:
            raise RequestRefused(422, "bad_query", "The query says who is to be forgotten: name=…")
        try:
            count = await process.persistence.forget(name)
            with process.generation.in_use() as generation:
                told = await ask_to_forget(generation.chain, process.guard, name)
        except (StoreError, HookFailed) as exc:
            message = f"Not everything is erased, ask again: {exc}"
            raise RequestRefused(503, "not_forgotten", message) from None
        if count:
            told.insert(0, f"what was written of {count} session{'s' if count > 1 else ''}")
        if not told:
            raise RequestRefused(404, "nothing_written", "Nothing is written of anybody of this name.")
        self._operated(exchange, "forget", name)
        await _respond(exchange, Forgotten(forgotten=told))

    def _named(self, exchange: Exchange) -> Served:
        served = self._process.served.get(exchange.request.path.removeprefix(f"{SESSIONS}/"))
        if served is None:
            raise RequestRefused(404, "no_such_session", "There is no session of this id in service.")
        return served

    async def _plugins(self, exchange: Exchange) -> None:
        guard = self._process.guard
        failures: dict[str, Counter[str]] = {}
        for (stage, hook, _), count in guard.failures.items():
            failures.setdefault(stage, Counter())[hook] += count
        with self._process.generation.in_use() as generation:
            health = await ask_health(generation.chain, guard)
        plugins = [
            PluginShown(
                stage=stage.name,
                plugin=stage.kind,
                on_error=stage.on_error,
                failures=failures.get(stage.name, {}),
                health=health.get(stage.name),
            )
            for stage in generation.chain.stages
        ]
        await _respond(exchange, PluginList(plugins=plugins))

    async def _reload(self, exchange: Exchange) -> None:
        try:
            report = await self._reloader.reload()
        except ConfigError as exc:
            raise RequestRefused(422, "not_reloaded", str(exc)) from None
        self._operated(exchange, "reload", ", ".join(report.changed) or "nothing")
        await _respond(exchange, report)

    async def _drain(self, exchange: Exchange) -> None:
        self._operated(exchange, "drain", "")
        sessions = len(self._process.served)
        if not self._process.stopping:
            self._process.stop("the admin socket")
        await _respond(exchange, Draining(sessions=sessions))

    async def _show_metrics(self, exchange: Exchange) -> None:
        await show_metrics(exchange, self._metrics)

    def _operated(self, exchange: Exchange, action: str, what: str) -> None:
        self._process.record(Operated(action=action, by=exchange.request.peer.address, what=what))


def _about(process: Process, served: Served) -> dict[str, Any]:
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
        "on_old_chain": session.chain is not process.chain,
        "events": Fates(
            **{way: {"came": lane.tally.came, **lane.tally.fates} for way, lane in lanes.items()}
        ),
        "waiting": Ways(**{way: lane.waiting for way, lane in lanes.items()}),
        "bytes": Ways(**{way: bytes_of(session, way) for way in DIRECTIONS}),
    }


async def _respond(exchange: Exchange, answer: msgspec.Struct) -> None:
    await exchange.respond(200, msgspec.to_builtins(answer))


async def show_metrics(exchange: Exchange, registry: CollectorRegistry) -> None:
    """Answer with the metrics as Prometheus reads them."""
    await exchange.respond(200, metrics.text(registry), {"Content-Type": metrics.CONTENT_TYPE})
