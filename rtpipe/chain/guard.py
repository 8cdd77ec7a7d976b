"""The guard: the only caller of plugin code.

It keeps the time limit of a hook, catches whatever comes out of it but cancellation, names and counts it,
and writes one log line for each kind of failure. What a failure then means is the stage's failure policy.
"""

import inspect
import logging
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
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

    async def call(self, call: HookCall, *args: Any, limit_s: float | None = None) -> Any:
        """Call a hook implementation and return what it returns.

        *limit_s* is used where the hook has no limit of its own. Raises ``HookFailed`` for whatever went
        wrong, and lets ``Refused`` through: that is how a hook says no.
        """
        limit = call.limit_s if call.limit_s is not None else limit_s
        try:
            if not call.is_async:
                return call.function(*args)
            with trio.move_on_after(limit if limit is not None else float("inf")) as scope:
                return await call.function(*args)
        except (Refused, trio.Cancelled):
            raise
        except BaseExceptionGroup as group:
            cancelled, rest = group.split(trio.Cancelled)
            if cancelled is not None:
                if rest is not None:
                    self._failed(call, rest)
                raise cancelled from None
            raise self._failed(call, group) from None
        except BaseException as exc:  # noqa: BLE001 — SystemExit too: a plugin does not end the process
            raise self._failed(call, exc) from None
        assert scope.cancelled_caught
        raise self.failed(call.stage, call.hook, "timeout", f"took longer than {limit:g} s")

    async def run(self, call: HookCall, *args: Any) -> bool:
        """Call a hook whose failure harms nobody else. Returns whether it succeeded."""
        try:
            await self.call(call, *args)
        except (HookFailed, Refused):
            return False
        return True

    def nonsense(self, call: HookCall, returned: object) -> HookFailed:
        """What a hook returned makes no sense: the failure to raise."""
        return self.failed(call.stage, call.hook, "nonsense", f"returned {type(returned).__name__}")

    def failed(self, stage: str, hook: str, kind: str, why: str) -> HookFailed:
        """Count a failure and write its log line if it is the first of its kind."""
        key = (stage, hook, kind)
        self.failures[key] += 1
        if self.failures[key] == 1:
            log.error("plugin %s: %s: %s (further ones are only counted)", stage, hook, why)
        return HookFailed(stage, hook, why)

    def _failed(self, call: HookCall, exc: BaseException) -> HookFailed:
        return self.failed(call.stage, call.hook, type(exc).__name__, describe(exc))


def describe(exc: BaseException) -> str:
    """An exception in one line: type, message, and where it was raised."""
    while isinstance(exc, BaseExceptionGroup):
        exc = exc.exceptions[0]
    message = ascii(str(exc))[1:-1][:_MESSAGE_CHARS]
    frames = traceback.extract_tb(exc.__traceback__)
    where = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    return f"{type(exc).__name__}: {message}{where}" if message else f"{type(exc).__name__}{where}"


def is_async(function: Callable[..., Any]) -> bool:
    """Whether calling *function* gives something to await."""
    return inspect.iscoroutinefunction(function)
