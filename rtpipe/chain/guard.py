"""The guard: the only caller of plugin code.

It keeps the time limit of a hook, catches whatever comes out of it but cancellation, names and counts it,
and writes one log line for each kind of failure. What a failure then means is the stage's failure policy.
"""

import inspect
import logging
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from types import CoroutineType, FrameType
from typing import Any

import trio

from rtpipe.api.errors import HookFailed, Refused
from rtpipe.api.plugin import OnError

log = logging.getLogger("rtpipe.guard")

_MESSAGE_CHARS = 200


@dataclass(frozen=True, slots=True)
class HookCall:
    """One hook implementation, ready to be called with the arguments of its specification."""

    stage: str
    hook: str
    function: Callable[..., Any]
    is_async: bool
    limit_s: float | None
    on_error: OnError


class Guard:
    """Calls hooks; keeps what failed, by (stage, hook, kind of failure)."""

    def __init__(self) -> None:
        self.failures: Counter[tuple[str, str, str]] = Counter()
        self.verdicts: Counter[tuple[str, str]] = Counter()
        """What event hooks decided, by stage and verdict: ``pass``, or the name of its type."""
        self.seconds: defaultdict[str, float] = defaultdict(float)
        """What event hooks took, by stage; waiting included."""

    def decided(self, stage: str, seconds: float, verdict: str) -> None:
        """Count what an event hook took and decided."""
        self.verdicts[stage, verdict] += 1
        self.seconds[stage] += seconds

    async def call(self, call: HookCall, *args: Any, limit_s: float | None = None) -> Any:
        """Call a hook implementation and return what it returns.

        *limit_s* is used where the hook has no limit of its own. Raises ``HookFailed`` for whatever went
        wrong, and lets ``Refused`` through: that is how a hook says no.
        """
        limit = call.limit_s if call.limit_s is not None else limit_s
        if not call.is_async:
            return self.call_now(call, *args)
        try:
            with trio.move_on_after(limit if limit is not None else float("inf")) as scope:
                return await call.function(*args)
        except Refused:
            raise
        except (trio.Cancelled, BaseExceptionGroup) as exc:
            raise self._cancelled_or_failed(call, exc) from None
        except BaseException as exc:  # noqa: BLE001 — SystemExit too: a plugin does not end the process
            raise self._failed(call, exc) from None
        assert scope.cancelled_caught
        raise self.failed(call.stage, call.hook, "timeout", f"took longer than {limit:g} s")

    def call_now(self, call: HookCall, *args: Any) -> Any:
        """Call an implementation that is no ``async def``, as ``call`` does."""
        try:
            returned = call.function(*args)
        except Refused:
            raise
        except BaseException as exc:  # noqa: BLE001 — cancellation too: it does not come out of a def
            raise self._failed(call, exc) from None
        if isinstance(returned, CoroutineType):
            returned.close()
            raise self.failed(call.stage, call.hook, "coroutine", "returned a coroutine: write async def")
        return returned

    async def run(self, call: HookCall, *args: Any) -> bool:
        """Call a hook whose failure harms nobody else. Returns whether it succeeded."""
        try:
            await self.call(call, *args)
        except HookFailed:
            return False
        except Refused:
            self.refused(call)
            return False
        return True

    def refused(self, call: HookCall) -> HookFailed:
        """A hook raised ``Refused`` where there is nobody to refuse: a failure like any other."""
        return self.failed(call.stage, call.hook, "Refused", "raised Refused in a hook that cannot refuse")

    def nonsense(self, call: HookCall, returned: object) -> HookFailed:
        """What a hook returned makes no sense: the failure to raise."""
        return self.failed(call.stage, call.hook, "nonsense", f"returned {type(returned).__name__}")

    def failed(self, stage: str, hook: str, kind: str, why: str) -> HookFailed:
        """Count a failure and write its log line if it is the first of its kind."""
        key = (stage, hook, kind)
        self.failures[key] += 1
        if self.failures[key] == 1:
            # What a tool raises may quote the caller: whoever asked for its answer knows what to mask.
            shown = kind if hook == "tool_call" else why
            log.error("plugin %s: %s: %s (further ones are only counted)", stage, hook, shown)
        return HookFailed(stage, hook, why)

    def _cancelled_or_failed(self, call: HookCall, exc: BaseException) -> BaseException:
        """What to raise for an exception in which there may be cancellation.

        Only cancellation that is meant for us passes. A plugin may have kept a ``Cancelled`` from elsewhere,
        and raising that here would end the host's task without anybody having cancelled it.
        """
        group = exc if isinstance(exc, BaseExceptionGroup) else BaseExceptionGroup("", [exc])
        cancelled, rest = group.split(trio.Cancelled)
        if cancelled is None or trio.current_effective_deadline() != float("-inf"):
            return self._failed(call, exc)
        if rest is not None:
            self._failed(call, rest)
        return cancelled if isinstance(exc, BaseExceptionGroup) else exc

    def _failed(self, call: HookCall, exc: BaseException) -> HookFailed:
        return self.failed(call.stage, call.hook, type(exc).__name__, describe(exc))


def describe(exc: BaseException) -> str:
    """An exception in one line: type, message, and where it was raised."""
    while isinstance(exc, BaseExceptionGroup):
        exc = exc.exceptions[0]
    try:
        message = ascii(str(exc))[1:-1][:_MESSAGE_CHARS]
    except BaseException:  # noqa: BLE001 — its __str__ is plugin code too
        message = "(its message cannot be read)"
    frames = traceback.extract_tb(exc.__traceback__)
    where = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    return f"{type(exc).__name__}: {message}{where}" if message else f"{type(exc).__name__}{where}"


def call_in(frame: FrameType | None) -> HookCall | None:
    """The hook call that a stack, from its innermost frame out, is in. For a thread that wants to know what
    keeps the event loop busy: the guard itself remembers nothing, which would cost every call."""
    while frame is not None:
        if frame.f_code in _CALLERS:
            call: HookCall = frame.f_locals["call"]
            return call
        frame = frame.f_back
    return None


_CALLERS = (Guard.call.__code__, Guard.call_now.__code__)


def is_async(function: Callable[..., Any]) -> bool:
    """Whether calling *function* gives something to await."""
    return inspect.iscoroutinefunction(function)
