"""A chain with memory connections on both sides, for the tests of plugins."""

import secrets
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Self

import msgspec
import trio
import trio.testing

from rtpipe.api.errors import ConfigError
from rtpipe.api.event import HOST, Json
from rtpipe.api.facts import Fact
from rtpipe.api.plugin import Plugin
from rtpipe.api.principal import ANONYMOUS, Principal
from rtpipe.api.request import DialRequest
from rtpipe.api.store import Store
from rtpipe.chain.compile import Chain
from rtpipe.chain.guard import Guard
from rtpipe.chain.instances import Lineup, Services, StageSpec, change, line_up, start, stop
from rtpipe.protocol.catalogue import DOWNSTREAM, UPSTREAM
from rtpipe.session import snapshot
from rtpipe.session.closing import Ending
from rtpipe.session.limits import SessionLimits
from rtpipe.session.session import Session
from rtpipe.session.snapshot import Snapshot
from rtpipe.transport.connection import Closing, Connection, ConnectionLost
from rtpipe.transport.memory import MemoryConnection, memory_pair

PluginType = type[Plugin[Any, Any]]


class End:
    """The far end of one leg: a client or an upstream played by the test."""

    def __init__(self, connection: MemoryConnection, nursery: trio.Nursery) -> None:
        self.connection = connection
        self.payloads: list[bytes] = []
        """Everything received and not yet taken, as it came."""
        self.closing: Closing | None = None
        """How the leg ended, once it has."""
        nursery.start_soon(self._receive)

    async def send(self, event: Json | bytes) -> None:
        """Send an event (a JSON object, or the exact text) and let everything happen that follows from it
        without time passing."""
        await self.connection.send(event if isinstance(event, bytes) else msgspec.json.encode(event))
        await trio.testing.wait_all_tasks_blocked()

    def take(self) -> list[Json]:
        """What has come since the last take."""
        taken, self.payloads = self.payloads, []
        return [msgspec.json.decode(payload) for payload in taken]

    def take_types(self) -> list[str]:
        """The types of what has come since the last take."""
        return [event["type"] for event in self.take()]

    async def _receive(self) -> None:
        try:
            while True:
                payload = await self.connection.receive()
                self.payloads.append(payload)
        except ConnectionLost as loss:
            self.closing = loss.closing


class ChainHarness(AbstractAsyncContextManager["ChainHarness"]):
    """One session of a chain, between a client and an upstream that the test plays.

    *stages* maps stage names to a plugin class, or to (class, options as in TOML), client first::

        async with ChainHarness({"response-lock": ResponseLock}) as chain:
            await chain.client.send({"type": "response.create"})
            assert chain.upstream.take_types() == ["response.create"]
    """

    client: End
    upstream: End
    session: Session
    _lineup: Lineup
    facts: list[Fact]
    """Every fact recorded, in order."""

    def __init__(
        self,
        stages: Mapping[str, PluginType | tuple[PluginType, Mapping[str, Any]]],
        *,
        principal: Principal = ANONYMOUS,
        model: str = "gpt-realtime-2.1",
        limits: SessionLimits | None = None,
        session_type: str = "realtime",
        on_error: Mapping[str, Any] | None = None,
        store: Callable[[str], Store] | None = None,
        upstream: Callable[[trio.Nursery], Connection] | None = None,
        traceparent: str = "",
        redials: bool = False,
        restores: Snapshot | None = None,
    ) -> None:
        """*redials*: an upstream that is lost, or nearly out of time, is replaced by the next. *restores*:
        the session is the one that another harness took a `snapshot` of, and its client comes back."""
        self._redials = redials
        self._restores = restores
        self._specs = [_spec(name, what, (on_error or {}).get(name)) for name, what in stages.items()]
        self._principal = principal
        self._model = model
        self._limits = limits
        self._session_type = session_type
        self._store = store or _no_store
        self._upstream = upstream
        self._traceparent = traceparent
        self.guard = Guard()
        self.facts = []
        self._stack = self._run()

    async def __aenter__(self) -> Self:
        try:
            await self._stack.__aenter__()
        except ExceptionGroup as group:
            raise _only(group) from None
        return self

    async def __aexit__(self, *exc_info: Any) -> bool | None:
        return await self._stack.__aexit__(*exc_info)

    def snapshot(self) -> Snapshot:
        """The session as it is written down where it is persisted."""
        written = msgspec.json.encode(snapshot.take(self.session))
        return msgspec.json.decode(written, type=Snapshot)

    async def settle(self) -> None:
        """Let everything happen that happens without time passing."""
        await trio.testing.wait_all_tasks_blocked()

    def plugin(self, stage: str) -> Any:
        """The instance at a stage."""
        return next(s.plugin for s in self.session.chain.stages if s.name == stage)

    def state(self, stage: str) -> Any:
        """What a stage keeps for the session."""
        return self.session.view(stage).state

    async def change_config(self, stage: str, options: Mapping[str, Any]) -> None:
        """Have a stage with a ``config_changed`` hook live with other options, as a reload does. Raises
        ``ConfigError``."""
        specs = [
            spec if spec.name != stage else _spec(stage, (spec.plugin_type, options), spec.on_error)
            for spec in self._specs
        ]
        await change(specs, [self._lineup], self.guard)
        self._specs = specs
        await self.settle()

    async def change_limits(self, limits: Mapping[str, str | int | float]) -> None:
        """Have the principal live under other limits, as when ``current_limits`` says so."""
        self.session.limit(limits)
        await self.settle()

    def check_fates(self) -> None:
        """Assert that every event that came has exactly one fate."""
        for direction in (UPSTREAM, DOWNSTREAM):
            lane = self.session.lane(direction)
            assert lane.tally.came == lane.tally.went + lane.waiting, (direction, lane.tally)

    async def replace_upstream(self, loss: str = "") -> End:
        """Cut the upstream leg over to a new connection, played by the test as before."""
        ours, theirs = memory_pair(_PLENTY)
        await self.session.attach_upstream(ours, loss)
        self.upstream = End(theirs, self._nursery)
        await self.settle()
        return self.upstream

    async def replace_client(self) -> End:
        """Attach a new client connection."""
        ours, theirs = memory_pair(_PLENTY)
        await self.session.attach_client(ours)
        self.client = End(theirs, self._nursery)
        await self.settle()
        return self.client

    async def resume_client(self, after: str | None = None) -> End:
        """Have the client come back that has named its session; *after* is the last event it has."""
        ours, theirs = memory_pair(_PLENTY)
        self.client = End(theirs, self._nursery)
        await self.session.parking.resume(ours, after)
        await self.settle()
        return self.client

    @asynccontextmanager
    async def _run(self) -> AsyncIterator[None]:
        with tempfile.TemporaryDirectory() as state_dir:
            async with trio.open_nursery() as self._nursery:
                services = Services(
                    self.guard,
                    self._nursery,
                    self._store,
                    Path(state_dir),
                    self.facts.append,
                    self._reconfigure,
                )
                self._lineup = await line_up(self._specs, services)
                chain = self._lineup.chain
                await start(chain, self.guard)
                served = trio.Event()
                await self._nursery.start(self._serve, chain, served)
                try:
                    yield
                finally:
                    self.session.end(Ending(1000, "", HOST))
                    with trio.CancelScope(shield=True):
                        await served.wait()
                        await self.settle()
                    await stop(chain, self.guard)
                    self._nursery.cancel_scope.cancel()

    async def _serve(
        self, chain: Chain, served: trio.Event, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        async with trio.open_nursery() as nursery:
            before = self._restores
            self.session = session = Session(
                f"sess_{secrets.token_hex(4)}" if before is None else before.session,
                self._principal,
                self._model,
                chain,
                self.guard,
                nursery,
                limits=self._limits,
                session_type=self._session_type,
                observer=self.facts.append,
                traceparent=self._traceparent,
            )
            request = DialRequest("test", "memory:", self._model, {})
            if self._redials:
                session.replacement.redial = lambda: session.connect(request, self._dial)
            if before is not None:
                snapshot.restore(before, session)
            try:
                await session.open()
                await session.dial(request, self._dial)
                session.opened("test", "test")
                await (self.replace_client() if before is None else self.resume_client())
                task_status.started()
                await session.ended.wait()
            finally:
                await session.close()
                served.set()

    def _reconfigure(self) -> None:
        if hasattr(self, "session"):  # plugins start before there is one
            self.session.reconfigure()

    async def _dial(self, _: DialRequest) -> Connection:
        if self._upstream is not None:
            return self._upstream(self._nursery)
        ours, theirs = memory_pair(_PLENTY)
        self.upstream = End(theirs, self._nursery)
        return ours


_PLENTY = 10_000


def _spec(name: str, what: PluginType | tuple[PluginType, Mapping[str, Any]], on_error: Any) -> StageSpec:
    plugin_type, options = what if isinstance(what, tuple) else (what, {})
    try:
        config: Any = msgspec.convert(options, plugin_type.config_type)
    except msgspec.ValidationError as exc:
        raise ConfigError(f"plugins.{name}: {exc}") from None
    return StageSpec(name, name, plugin_type, config, on_error)


def _only(exc: Exception) -> Exception:
    """Without the nurseries' wrapping, where only one thing went wrong: ``Refused`` by a stage, say."""
    while isinstance(exc, ExceptionGroup) and len(exc.exceptions) == 1:
        exc = exc.exceptions[0]
    return exc


def _no_store(stage: str) -> Store:
    raise LookupError(f"{stage}: pass store=… to the harness")
