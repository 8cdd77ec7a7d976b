"""Configurations put in service: the first at the start, others by a reload, which changes all or nothing."""

import logging
from collections.abc import Callable, Sequence

import msgspec
import trio

from rtpipe.api.errors import ConfigError
from rtpipe.chain import instances
from rtpipe.chain.instances import Instance, Lineup, Services, StageSpec
from rtpipe.daemon import changes, diff, logs, service
from rtpipe.daemon.config import Config, Upstream
from rtpipe.daemon.config_load import Loaded
from rtpipe.daemon.diff import Side
from rtpipe.daemon.generation import Generation
from rtpipe.daemon.hooks import collect_routes
from rtpipe.daemon.listeners import check_certificates, renew_certificates
from rtpipe.daemon.process import Process
from rtpipe.daemon.stages import specs_of

log = logging.getLogger("rtpipe.daemon")


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What a reload did. *changed* are dotted keys, *diff* says for each what it was and what it is, without
    secrets, at most a hundred and a line that says how many more.

    *at_next_start* are keys that the daemon does not run with yet, from earlier reloads too; *new_plugins*
    are stages whose plugin was made anew.
    """

    changed: list[str]
    diff: list[str]
    at_next_start: list[str]
    chain: list[str]
    new_plugins: list[str]
    sessions_on_old_chain: int
    warnings: list[str]


class Reloader:
    """Makes generations, and shuts down what no generation in service needs any more."""

    def __init__(
        self,
        process: Process,
        services: Services,
        upstreams_of: Callable[[Config], Sequence[Upstream]],
        read_again: Callable[[], Loaded] | None,
        *,
        secrets_of_upstreams: bool,
    ) -> None:
        self._process = process
        self._services = services
        self._upstreams_of = upstreams_of
        self._read_again = read_again
        self._secrets_of_upstreams = secrets_of_upstreams
        self._started_with = process.generation.loaded
        self._living = [process.generation]
        self._changing = trio.Lock()
        self._retiring = trio.Lock()

    async def first(self, loaded: Loaded, specs: Sequence[StageSpec]) -> None:
        """Put in service what the daemon starts with. Raises ``ConfigError``."""
        async with self._changing:
            await self._put_in_service(loaded, loaded.config, specs)

    async def reload(self) -> Report:
        """Read the same files again and put them in service. Raises ``ConfigError``, and has changed nothing.

        Waits for a reload that is under way; that is as long as its plugins take to start, which is limited.
        """
        async with self._changing:
            service.tell(RELOADING=1, MONOTONIC_USEC=service.monotonic_usec())
            status = "serving with the configuration of before"
            try:
                report = await self._reload()
                status = f"serving, reloaded: {', '.join(report.changed) or 'nothing'} changed"
            except ConfigError as exc:
                status = f"serving as before, not reloaded: {exc}"
                log.error("reload: nothing has changed: %s", exc)  # noqa: TRY400 - an operator's mistake
                raise
            finally:
                service.tell(READY=1, STATUS=status)
        for warning in report.warnings:
            log.warning("reload: %s", warning)
        log.info(
            "reload: changed: %s; at the next start: %s; new plugins: %s; %d sessions keep the old chain",
            "; ".join(report.diff) or "nothing",
            ", ".join(report.at_next_start) or "nothing",
            ", ".join(report.new_plugins) or "none",
            report.sessions_on_old_chain,
        )
        return report

    async def stop(self) -> None:
        """Shut down every plugin there is. Shielded; each hook has its own limit."""
        with trio.CancelScope(shield=True):
            for generation in reversed(list(self._living)):
                await self._retire(generation)

    async def _reload(self) -> Report:
        process, before = self._process, self._process.generation
        if process.stopping:
            raise ConfigError("the daemon is stopping")
        # Files and imports take their time, which the sessions must not wait for.
        loaded, specs = await trio.to_thread.run_sync(self._read, abandon_on_cancel=True)
        self._check_running_doors(loaded, specs)
        started_with, doors = self._started_with, process.doors
        await trio.to_thread.run_sync(check_certificates, started_with, doors, abandon_on_cancel=True)
        different = changes.changed(before.loaded.sources.data, loaded.sources.data)
        new: list[str] = []
        if different:
            new = await self._put_in_service(loaded, changes.in_force(loaded.config, before.config), specs)
        renew_certificates(started_with, doors)
        if loaded.config.log != before.config.log:
            logs.set_up(loaded.config.log)
        since_start = changes.changed(self._started_with.sources.data, loaded.sources.data)
        chain = process.chain
        return Report(
            changed=changes.names(different),
            diff=diff.lines(
                different, Side(before.loaded.sources, before.specs), Side(loaded.sources, specs)
            ),
            at_next_start=changes.names([path for path in since_start if changes.waits(path)]),
            chain=[stage.name for stage in chain.stages],
            new_plugins=new,
            sessions_on_old_chain=sum(each.generation.chain is not chain for each in process.served.values()),
            warnings=list(loaded.warnings),
        )

    def _read(self) -> tuple[Loaded, list[StageSpec]]:
        if self._read_again is None:
            raise ConfigError("this configuration stands in no file that could be read again")
        loaded = self._read_again()
        return loaded, specs_of(loaded, secrets_of_upstreams=self._secrets_of_upstreams)

    def _check_running_doors(self, loaded: Loaded, specs: Sequence[StageSpec]) -> None:
        """The doors stay as they are, so what the files say of them is not enough."""
        if any(hasattr(spec.plugin_type, "authenticate") for spec in specs):
            return
        for door in self._process.config.listen:
            if not door.open:
                what = f"no stage authenticates callers, and the listener {door.name} is not open to all"
                raise loaded.sources.error(("chain",), f"{what} before the next start: restart instead")

    async def _put_in_service(self, loaded: Loaded, config: Config, specs: Sequence[StageSpec]) -> list[str]:
        """Everything that can fail first, then the exchange. Returns the stages whose plugin is new."""
        before, guard = self._process.generation, self._services.guard
        lineup = before.lineup
        if specs != before.specs:
            try:
                lineup = await instances.line_up(specs, self._services, before.lineup)
            except ConfigError as exc:
                raise loaded.sources.error(("chain",), str(exc)) from None
        new = [
            name for name, made in lineup.instances.items() if made is not before.lineup.instances.get(name)
        ]
        try:
            await instances.start(lineup.chain, guard, new)
            try:
                routes = await collect_routes(lineup.chain, guard)
                # Instances that only sessions of before have are among them: what changes, changes for all.
                await instances.change(specs, [each.lineup for each in self._living], guard)
            except BaseException:
                await instances.stop(lineup.chain, guard, new)
                raise
        except BaseException:
            _end(lineup, new)
            raise
        generation = Generation(loaded, config, specs, lineup, self._upstreams_of(config), routes)
        self._process.put_in_service(generation)
        self._living.append(generation)
        self._services.nursery.start_soon(self._retire_in_time, before)
        self._services.judge_again()
        return new

    async def _retire_in_time(self, generation: Generation) -> None:
        await generation.unused()
        with trio.CancelScope(shield=True):
            await self._retire(generation)

    async def _retire(self, generation: Generation) -> None:
        """Shut down the plugins that only this generation had. The limits of their hooks bound the wait."""
        async with self._retiring:
            if generation not in self._living:
                return
            self._living.remove(generation)
            needed: set[Instance] = {i for each in self._living for i in each.lineup.instances.values()}
            unneeded = [name for name, i in generation.lineup.instances.items() if i not in needed]
            await instances.stop(generation.chain, self._services.guard, unneeded)
            _end(generation.lineup, unneeded)


def _end(lineup: Lineup, stages: Sequence[str]) -> None:
    for name in stages:
        lineup.instances[name].host.end()
