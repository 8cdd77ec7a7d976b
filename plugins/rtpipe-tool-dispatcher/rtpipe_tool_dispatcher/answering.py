"""From a call to its answer: checked, confirmed, shared with equal ones, run, and put into an envelope."""

import difflib
import logging
import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import trio

from rtpipe import HookFailed, Json, Retry, Session, Tool, ToolCall, facts, tool_error
from rtpipe_tool_dispatcher import arguments as args
from rtpipe_tool_dispatcher import envelope, sayable
from rtpipe_tool_dispatcher.health import Health
from rtpipe_tool_dispatcher.state import Call, Run, State

if TYPE_CHECKING:
    from rtpipe_tool_dispatcher.plugin import ToolDispatcher

log = logging.getLogger("rtpipe_tool_dispatcher")

PAGES_KEPT_S = 300.0
_NAMES_OFFERED = 3
_LOGGED_CHARS = 2000
Change = Callable[[Health], None]


class Answer(NamedTuple):
    """*envelope* is for the model, *status* for the fact."""

    envelope: str
    status: str


class Answering:
    """Answers calls for all sessions of one plugin instance."""

    def __init__(self, plugin: "ToolDispatcher") -> None:
        self._plugin = plugin
        self._config = plugin.config
        self._health: dict[str, Health] = {}
        self.schemas = args.Schemas()
        self.running: set[Run] = set()

    async def answer(self, session: Session[State], call: Call) -> Answer:
        """The answer for the model, within the tool's time limit whatever happens."""
        state, tool = session.state, call.tool
        if tool is None:
            return self._no_such_function(session, call)
        try:
            arguments = args.parse(call.arguments)
        except ValueError:
            return Answer(tool_error("The arguments are not a JSON object: call again.", "now"), "invalid")
        page = self._take_page(tool, arguments)
        if (problems := self.schemas.problems(tool, arguments)) is not None:
            return Answer(tool_error(problems, "now"), "invalid")
        key = args.canonical(tool.name, arguments)
        if (known := self._known(state, tool, key, page, session.now())) is not None:
            call.run, status = known
            return await self._outcome(session, call, tool, page, repeat=status)
        if tool.confirm and not state.has_confirmed(key, session.now()):
            return Answer(_ask_to_confirm(tool, arguments), "unconfirmed")
        if state.is_busy:
            return Answer(tool_error("Too many calls are running: wait for their answers.", "later"), "busy")
        if not self._health_of(tool).admits(session.now()):
            return Answer(tool_error(self._config.failure_message, "later"), "breaker")
        call.run = self._start(session, call, tool, key, arguments)
        return await self._outcome(session, call, tool, page)

    # --- before it runs -------------------------------------------------------------------------------------

    def _no_such_function(self, session: Session[State], call: Call) -> Answer:
        names = sorted(set(session.state.tools) | session.state.client_tools)
        near = difflib.get_close_matches(call.name, names, _NAMES_OFFERED, cutoff=0.4)
        log.info("session %s: the model called %s, which does not exist", session.id, ascii(call.name[:80]))
        hint = f" Did you mean {' or '.join(near)}?" if near else " None has a name like it."
        return Answer(tool_error(f"There is no such function.{hint}", "now" if near else "no"), "invented")

    def _take_page(self, tool: Tool, arguments: Json) -> int:
        """The page asked for, taken out of the arguments where the tool has no such argument of its own."""
        page = arguments.get("page")
        if _has_own_page(tool) or isinstance(page, bool) or not isinstance(page, int) or page < 1:
            return 1
        del arguments["page"]
        return page

    def _known(self, state: State, tool: Tool, key: str, page: int, now_s: float) -> tuple[Run, str] | None:
        """An equal call's run that answers this one too, and what to call that."""
        run = state.runs.get(key)
        if run is None:
            return None
        if not run.done.is_set():
            return run, "repeat"
        age_s = now_s - run.ended_s
        if run.status == "ok" and page > 1 and age_s <= PAGES_KEPT_S:
            return run, "page"
        is_final = run.status == "ok" or (run.status == "error" and run.is_retry)
        if is_final and age_s < self._config.repeat_window_s:
            return run, "repeat"
        return (run, "cached") if run.status == "ok" and age_s < tool.cache_ttl_s else None

    # --- running --------------------------------------------------------------------------------------------

    def _start(self, session: Session[State], call: Call, tool: Tool, key: str, arguments: Json) -> Run:
        before, now_s = session.state.runs.get(key), session.now()
        is_retry = (
            before is not None
            and (before.status == "error" or before.timed_out)
            and now_s - before.ended_s <= self._config.repeat_window_s
        )
        run = Run(now_s, is_retry)
        session.state.keep(key, run)
        self.running.add(run)
        text = msgspec.json.encode(arguments).decode() if "page" in call.arguments else call.arguments
        tool_call = ToolCall(call_id=call.call_id, name=tool.name, arguments=text)
        # What may not be cancelled outlives the session: nothing but its own limit ends it.
        start_soon = session.start_soon if tool.cancellable else self._plugin.start_soon
        start_soon(self._run, session, tool, tool_call, run, arguments)
        return run

    async def _run(
        self, session: Session[State], tool: Tool, call: ToolCall, run: Run, arguments: Json
    ) -> None:
        why = "it was ended"
        try:
            with run.scope:
                try:
                    answer = await session.answer_tool(call, self._config.late_limit_s)
                    why = "no stage answers calls of it" if answer is None else ""
                except HookFailed as exc:
                    answer, why = None, str(exc)
            if run.scope.cancelled_caught:
                run.status = "cancelled"
                if not run.timed_out:
                    self._health_of(tool).undecided()
            elif answer is None:
                self._failed(session, tool, call, run, args.scrubbed(why, arguments, tool.mask))
            else:
                self._answered(session, tool, call, run, envelope.wrap(answer), arguments)
        finally:
            run.status = run.status or "cancelled"
            run.ended_s = session.now()
            run.done.set()
            self.running.discard(run)
            session.state.make_room()

    def _answered(
        self, session: Session[State], tool: Tool, call: ToolCall, run: Run, answer: str, arguments: Json
    ) -> None:
        run.status = "error" if envelope.is_error(answer) else "ok"
        if run.status == "error" and envelope.retry_of(answer) == "later":
            self._went_wrong(session, tool, run)
        elif not run.timed_out:
            self._change_health(session, tool, lambda health: health.succeeded())
        if run.status == "error" or len(answer) > envelope.PAGED_CHARS:
            answer = envelope.fit(answer, self._config.max_result_chars, tool.name)
        if run.status == "error" and not sayable.is_sayable(envelope.words(answer)):
            # A tool's own words, but none for a caller.
            why = args.scrubbed(ascii(answer[:_LOGGED_CHARS]), arguments, tool.mask)
            failure_id = _logged(session, call, f"it says {why}")
            retry = envelope.retry_of(answer) or "no"
            answer = envelope.failure(self._config.failure_message, retry, failure_id)
        run.envelope = answer

    def _failed(self, session: Session[State], tool: Tool, call: ToolCall, run: Run, why: str) -> None:
        failure_id = _logged(session, call, why)
        self._went_wrong(session, tool, run)
        run.status = "error"
        retry = self._retry(tool, run, session.now())
        run.envelope = envelope.failure(self._config.failure_message, retry, failure_id)

    def _went_wrong(self, session: Session[State], tool: Tool, run: Run) -> None:
        """Count a failure, once a run: one that was too slow may fail besides."""
        if not run.timed_out:
            self._change_health(session, tool, lambda health: health.failed(session.now()))

    def _change_health(self, session: Session[State], tool: Tool, change: Change) -> None:
        health = self._health_of(tool)
        before = health.state
        change(health)
        if health.state != before:
            fact = facts.BreakerChanged(
                name=tool.name, stage=self._plugin.stage, state=health.state, failures=health.failures
            )
            session.record(fact)
            log.warning("tool %s: %s after %d failures in a row", tool.name, health.state, health.failures)

    def _health_of(self, tool: Tool) -> Health:
        if tool.name not in self._health:
            self._health[tool.name] = Health(self._config.breaker_failures, self._config.breaker_open_s)
        return self._health[tool.name]

    def _retry(self, tool: Tool, run: Run, now_s: float) -> Retry:
        if self._health_of(tool).is_out(now_s):
            return "later"
        return "no" if run.is_retry else "now"

    # --- what comes of it -----------------------------------------------------------------------------------

    async def _outcome(
        self, session: Session[State], call: Call, tool: Tool, page: int, repeat: str = ""
    ) -> Answer:
        """Wait for the call's run, not longer than the tool may take."""
        run = call.run
        assert run is not None
        with trio.move_on_after(tool.timeout_s):
            await run.done.wait()
        if not run.done.is_set():
            return self._too_late(session, call, tool, run, repeat)
        if run.status == "cancelled":
            if run.cancelled_by == "timeout":
                return Answer(tool_error(self._config.timeout_message, "no"), repeat or "timeout")
            return Answer(tool_error("Cancelled: the caller went on speaking.", "now"), "cancelled")
        text = run.envelope
        if repeat and run.status == "error" and envelope.retry_of(text) == "now":
            text = envelope.with_retry(text, "no")
        return Answer(self._fit(text, tool, page), repeat or run.status)

    async def _give_late(self, session: Session[State], call: Call, tool: Tool, run: Run) -> None:
        await run.done.wait()
        is_wanted = tool.late == "offer" and run.status != "cancelled"
        self._plugin.giving.late(session, call, self._fit(run.envelope, tool, 1) if is_wanted else None)

    def _fit(self, text: str, tool: Tool, page: int) -> str:
        can_ask = not _has_own_page(tool)
        return envelope.fit(text, self._config.max_result_chars, tool.name, page, can_ask=can_ask)

    def _too_late(self, session: Session[State], call: Call, tool: Tool, run: Run, repeat: str) -> Answer:
        self._went_wrong(session, tool, run)
        was_told, run.timed_out = run.timed_out, True
        if not was_told:
            log.warning("session %s: tool %s took longer than %g s", session.id, tool.name, tool.timeout_s)
            if tool.late == "offer" or not tool.cancellable:
                session.start_soon(self._give_late, session, call, tool, run)
            else:
                run.cancel("timeout")
        retry = "no" if repeat else self._retry(tool, run, session.now())
        return Answer(tool_error(self._config.timeout_message, retry), repeat or "timeout")


def _logged(session: Session[State], call: ToolCall, why: str) -> str:
    """Tell the log why a call failed; returns the id that the model is told."""
    failure_id = secrets.token_hex(4)
    call_id = ascii(call.call_id[:80])
    log.warning(
        "session %s: tool %s: call %s failed, id %s: %s", session.id, call.name, call_id, failure_id, why
    )
    return failure_id


def _has_own_page(tool: Tool) -> bool:
    properties = tool.parameters.get("properties")
    return isinstance(properties, dict) and "page" in properties


def _ask_to_confirm(tool: Tool, arguments: Json) -> str:
    said = msgspec.json.encode(arguments).decode()
    return tool_error(
        f"Not done yet. Ask the caller to confirm, reading this back: {said}. When the caller has said yes, "
        f"call {tool.name} again with the same arguments.",
        "now",
    )
