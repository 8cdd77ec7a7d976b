"""The daemon: from a configuration to listeners that serve it, and back to silence."""

import logging
import os
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import trio

from rtpipe.api.errors import ConfigError
from rtpipe.api.facts import Fact
from rtpipe.chain.compile import Chain
from rtpipe.chain.guard import Guard
from rtpipe.chain.instances import Lineup, Services, StageSpec
from rtpipe.daemon import metrics, service, watch
from rtpipe.daemon.admin import Admin
from rtpipe.daemon.audit import Audit
from rtpipe.daemon.config import Config, Upstream
from rtpipe.daemon.config_load import Loaded
from rtpipe.daemon.drain import drain
from rtpipe.daemon.generation import Generation
from rtpipe.daemon.lines import STOPPING, serve_admin_lines, serve_lines
from rtpipe.daemon.listeners import open_all
from rtpipe.daemon.logs import log_fact
from rtpipe.daemon.persistence import NAMESPACE, Persistence
from rtpipe.daemon.process import Process
from rtpipe.daemon.reload import Reloader
from rtpipe.daemon.routes import Routes
from rtpipe.daemon.service import Sockets
from rtpipe.daemon.stages import specs_of
from rtpipe.daemon.standing import judge_everybody
from rtpipe.session.closing import GOING_AWAY
from rtpipe.session.watch import Watchers
from rtpipe.store import Store
from rtpipe.transport.frames import Reassembly
from rtpipe.transport.listening import Listener
from rtpipe.transport.server import serve

log = logging.getLogger("rtpipe.daemon")

TAPS_LIMIT_S = 1.0


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
    read_again: Callable[[], Loaded] | None = None,
    sockets: Sockets | None = None,
) -> None:
    """Serve until SIGTERM, SIGINT, or cancellation.

    *sim_pace*: dial a simulated model of our own, which speaks so many times as fast as real time (0: never
    waits), instead of the configured upstreams. *observer* is shown every fact. *read_again* is what a reload
    loads; without it there is nothing to reload. *sockets* are those that the service manager passed.

    Raises ``ConfigError`` for whatever keeps it from starting.
    """
    specs = specs_of(loaded, secrets_of_upstreams=sim_pace is None)
    failure: ConfigError | None = None
    try:
        await _run(loaded, specs, sim_pace, ready, observer, read_again, sockets or {})
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
    read_again: Callable[[], Loaded] | None,
    sockets: Sockets,
) -> None:
    files = watch.seen(loaded)
    guard = Guard()
    watchers = Watchers(guard, loaded.config.limits.watch_events)
    state_dir = loaded.config.state_path
    nothing = Generation(loaded, loaded.config, (), Lineup(Chain(()), {}), (), {})
    reassembly = Reassembly(loaded.config.limits.max_reassembly_bytes)
    audit = Audit(loaded.config.audit.file)
    process = Process(nothing, guard, watchers, reassembly, observer=observer, audit=audit)
    store = Store.at(state_dir / "store.sqlite3", failed=process.store_failed)
    process.persistence = Persistence(
        store.namespace(NAMESPACE),
        lambda: process.config.persist,
        lambda: process.generation.sealer,
        process.record,
    )
    # What plugins run in the background outlives the sessions.
    async with trio.open_nursery() as background:
        services = Services(
            guard,
            background,
            store.namespace,
            state_dir / "plugins",
            process.record,
            process.reconfigure,
            partial(background.start_soon, judge_everybody, process),
            process.redact_text,
            partial(metrics.snapshot, process),
        )
        upstreams_of: Callable[[Config], Sequence[Upstream]] = _configured
        if sim_pace is not None:
            upstreams_of = await _simulated(background, sim_pace)
        reloader = Reloader(
            process, services, upstreams_of, read_again, secrets_of_upstreams=sim_pace is None
        )
        background.start_soon(watchers.run)
        background.start_soon(process.alerts.run)
        background.start_soon(process.watchdog.run)
        background.start_soon(process.pressure.run)
        background.start_soon(process.totals.measure_lag)
        background.start_soon(audit.run)
        try:
            async with trio.open_nursery() as attending:
                # From before the plugins start: without it the signal would end the process.
                await attending.start(_reload_on_signal, reloader)
                await reloader.first(loaded, specs)
                await _serve(loaded, files, sockets, process, reloader, ready)
                attending.cancel_scope.cancel()
        finally:
            await reloader.stop()
            await store.close()
            background.cancel_scope.cancel()


async def _serve(
    loaded: Loaded,
    files: watch.Seen,
    sockets: Sockets,
    process: Process,
    reloader: Reloader,
    ready: Callable[[Ready], None],
) -> None:
    """Open the listeners, serve, and when told to stop drain."""
    doors, admin = await open_all(loaded, sockets)
    process.doors = doors
    process.has_successor = any(listener.is_passed for listener in doors)
    # The admin socket answers for as long as there is anything to look after.
    async with trio.open_nursery() as looking_after, trio.open_nursery() as handlers:
        await looking_after.start(_stop_on_signal, process)
        if admin:
            answer = Admin(process, reloader).handle
            taps = partial(serve_admin_lines, process)
            looking_after.start_soon(partial(serve, admin, answer, lines_handler=taps))
        looking_after.start_soon(watch.watch, process, reloader, files)
        accepting = trio.CancelScope()
        handlers.start_soon(_serve_doors, process, doors, handlers, accepting)
        addresses = [_address(listener) for listener in doors]
        ready(Ready(addresses, process))
        service.tell(READY=1, STATUS=f"serving {' '.join(addresses)}")
        await process.stop_asked()
        # A socket that was passed to us is passed to the next, which serves who comes now. At our own, who
        # comes is told until the end that there is nobody, and so is who asks whether we are ready.
        if process.has_successor:
            accepting.cancel()
        await drain(process)
        with trio.move_on_after(TAPS_LIMIT_S):
            await process.tools.end(GOING_AWAY, STOPPING)
            await process.end_taps()
        handlers.cancel_scope.cancel()
        looking_after.cancel_scope.cancel()


async def _serve_doors(
    process: Process, doors: Sequence[Listener], handlers: trio.Nursery, accepting: trio.CancelScope
) -> None:
    limits = process.config.limits
    with accepting:
        await serve(
            doors,
            Routes(process).handle,
            lines_handler=partial(serve_lines, process),
            nursery=handlers,
            crowd=process.crowd,
            max_message_bytes=limits.max_message_bytes,
            reassembly=process.reassembly,
            write_deadline_s=limits.write_deadline_s,
            head_deadline_s=limits.handshake_timeout_s,
            max_head_bytes=limits.max_head_bytes,
        )


async def _reload_on_signal(
    reloader: Reloader, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    with trio.open_signal_receiver(signal.SIGHUP) as signals:
        task_status.started()
        async for _ in signals:
            with suppress(ConfigError):  # it is in the log
                await reloader.reload()


async def _stop_on_signal(
    process: Process, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        task_status.started()
        async for number in signals:
            name = signal.Signals(number).name
            if process.stopping:
                log.warning("%s again: stopping at once", name)
                os._exit(1)
            process.stop(name)


def _configured(config: Config) -> Sequence[Upstream]:
    return config.upstream


async def _simulated(nursery: trio.Nursery, pace: float) -> Callable[[Config], Sequence[Upstream]]:
    """A simulated model of our own, as an upstream with the first configured one's models."""
    from rtpipe import sim  # loaded only when asked for

    start = partial(sim.serve, sim.SimOptions(pace=pace))
    host, port = await nursery.start(start)
    url = f"ws://{_place(host, port)}/v1/realtime"

    def upstreams_of(config: Config) -> Sequence[Upstream]:
        first = config.upstream[0]
        models = dict(first.models)
        return (Upstream(name="sim", kind="sim", url=url, default_model=first.default_model, models=models),)

    return upstreams_of


def _address(listener: Listener) -> str:
    """Where a client of the Realtime protocol connects; a Unix socket has no URL of its own."""
    return listener.url if listener.is_unix else f"{listener.url}/v1/realtime"


def _place(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _first(group: BaseExceptionGroup[ConfigError]) -> ConfigError:
    exc: BaseException = group
    while isinstance(exc, BaseExceptionGroup):
        exc = exc.exceptions[0]
    assert isinstance(exc, ConfigError)
    return exc
