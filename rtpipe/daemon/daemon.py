"""The daemon: from a configuration to listeners that serve it, and back to silence."""

import logging
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import trio

from rtpipe.api.errors import ConfigError
from rtpipe.api.event import HOST
from rtpipe.api.facts import Fact
from rtpipe.chain import instances
from rtpipe.chain.guard import Guard
from rtpipe.chain.instances import Services, StageSpec
from rtpipe.daemon.config import Upstream
from rtpipe.daemon.config_load import Loaded, check_doors, check_secrets
from rtpipe.daemon.lines import serve_lines
from rtpipe.daemon.listeners import check_files, open_all
from rtpipe.daemon.logs import log_fact
from rtpipe.daemon.process import Process
from rtpipe.daemon.routes import Routes
from rtpipe.session.closing import Ending
from rtpipe.session.watch import Watchers
from rtpipe.store import Store
from rtpipe.transport.server import Listener, serve

log = logging.getLogger("rtpipe.daemon")

SERVICE_RESTART = 1012
STOP_LIMIT_S = 10.0


@dataclass(frozen=True, slots=True)
class Ready:
    """What is told when the daemon serves: the addresses as bound, and the process.

    They are ``ws://…``, ``wss://…`` or ``unix:/path``.
    """

    addresses: Sequence[str]
    process: Process


async def run(
    loaded: Loaded,
    *,
    sim_pace: float | None = None,
    ready: Callable[[Ready], None] = lambda _: None,
    observer: Callable[[Fact], None] = log_fact,
) -> None:
    """Serve until SIGTERM, SIGINT, or cancellation.

    *sim_pace*: dial a simulated model of our own, which speaks so many times as fast as real time (0: never
    waits), instead of the configured upstreams. *observer* is shown every fact.

    Raises ``ConfigError`` for whatever keeps it from starting.
    """
    specs = _specs(loaded, secrets_of_upstreams=sim_pace is None)
    failure: ConfigError | None = None
    try:
        await _run(loaded, specs, sim_pace, ready, observer)
    except* ConfigError as group:
        failure = _first(group)
    if failure is not None:
        raise failure


async def _run(
    loaded: Loaded,
    specs: Sequence[StageSpec],
    sim_pace: float | None,
    ready: Callable[[Ready], None],
    observer: Callable[[Fact], None],
) -> None:
    guard = Guard()
    watchers = Watchers(guard, loaded.config.limits.watch_events)
    state_dir = loaded.config.state_path
    store = Store.at(state_dir / "store.sqlite3")
    # What plugins run in the background outlives the sessions.
    async with trio.open_nursery() as background:
        process: Process

        def record(fact: Fact) -> None:
            process.record(fact)

        services = Services(guard, background, store.namespace, state_dir / "plugins", record)
        try:
            chain = await instances.build_chain(specs, services)
        except ConfigError as exc:
            raise loaded.sources.error(("chain",), str(exc)) from None
        upstreams = loaded.config.upstream
        if sim_pace is not None:
            upstreams = (await _simulated(background, sim_pace, upstreams),)
        process = Process(loaded.config, guard, chain, upstreams, watchers, observer=observer)
        background.start_soon(watchers.run)
        await instances.start(chain, guard)
        try:
            await _serve(loaded, process, ready)
        finally:
            await instances.stop(chain, guard)
            await store.close()
            background.cancel_scope.cancel()


async def _serve(loaded: Loaded, process: Process, ready: Callable[[Ready], None]) -> None:
    """Open the listeners, serve, and on a signal stop: no new sessions, then an end to those there are."""
    routes = Routes(process)
    await routes.collect()
    limits = process.config.limits
    listeners = await open_all(loaded)
    async with trio.open_nursery() as handlers:
        with trio.CancelScope() as accepting:
            await handlers.start(_stop_on_signal, process, accepting)
            addresses = [_address(listener) for listener in listeners]
            ready(Ready(addresses, process))
            await serve(
                listeners,
                routes.handle,
                lines_handler=partial(serve_lines, process),
                nursery=handlers,
                max_message_bytes=limits.max_message_bytes,
                write_deadline_s=limits.write_deadline_s,
                head_deadline_s=limits.handshake_timeout_s,
            )
        with trio.move_on_after(STOP_LIMIT_S):
            await process.empty()
        handlers.cancel_scope.cancel()


async def _stop_on_signal(
    process: Process,
    accepting: trio.CancelScope,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        task_status.started()
        async for number in signals:
            name = signal.Signals(number).name
            if process.stopping:
                log.warning("%s again: stopping at once", name)
                os._exit(1)
            log.info("%s: stopping, %d sessions end", name, len(process.sessions))
            process.stopping = True
            process.end_sessions(Ending(SERVICE_RESTART, "service restart", HOST))
            accepting.cancel()


async def _simulated(nursery: trio.Nursery, pace: float, configured: Sequence[Upstream]) -> Upstream:
    """A simulated model of our own, as an upstream with the first configured one's models."""
    from rtpipe import sim  # loaded only when asked for

    start = partial(sim.serve, sim.SimOptions(pace=pace))
    host, port = await nursery.start(start)
    url = f"ws://{_place(host, port)}/v1/realtime"
    first = configured[0]
    return Upstream(
        name="sim", kind="sim", url=url, default_model=first.default_model, models=dict(first.models)
    )


def _specs(loaded: Loaded, *, secrets_of_upstreams: bool) -> list[StageSpec]:
    """What to make of each stage, with everything checked that can be before anything starts."""
    specs = []
    for stage in loaded.stages:
        plugin = stage.load_plugin()
        config: object = stage.plugin_config(plugin.config_type)
        timeout_s = None if stage.timeout_ms is None else stage.timeout_ms / 1000
        specs.append(StageSpec(stage.name, stage.plugin, plugin, config, stage.on_error, timeout_s))
    configs = {spec.name: spec.config for spec in specs}
    check_secrets(loaded, configs, upstreams=secrets_of_upstreams)
    check_doors(loaded, {spec.name: spec.plugin_type for spec in specs})
    check_files(loaded, upstreams=secrets_of_upstreams)
    return specs


def _address(listener: Listener) -> str:
    """Where a client of the Realtime protocol connects; a Unix socket has no URL of its own."""
    return listener.url if listener.file is not None else f"{listener.url}/v1/realtime"


def _place(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _first(group: BaseExceptionGroup[ConfigError]) -> ConfigError:
    exc: BaseException = group
    while isinstance(exc, BaseExceptionGroup):
        exc = exc.exceptions[0]
    assert isinstance(exc, ConfigError)
    return exc
