"""Tool services: local programs that offer tools over JSON lines, and the calls they are asked to answer."""

import logging
import secrets
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Final

import msgspec
import trio

from rtpipe.api.errors import HookFailed, Refused
from rtpipe.api.event import HOST
from rtpipe.api.principal import Principal
from rtpipe.api.tools import Tool, ToolCall, tool_error
from rtpipe.daemon.messages import (
    CallTool,
    CancelTool,
    ErrorMessage,
    Message,
    OfferedTool,
    ToolResult,
    ToolsRegistered,
)

log = logging.getLogger("rtpipe.daemon")

MAX_SERVICES: Final = 256
MAX_TOOLS: Final = 64
"""That one connection may register."""
MAX_TOOL_BYTES: Final = 32 * 1024
"""Of one tool's JSON, schema and all."""
MAX_OPEN_CALLS: Final = 64
"""That one connection has to answer; past it another of the same principal is asked, or nobody."""
MAX_RESULT_BYTES: Final = 256 * 1024
MAX_UNREAD_LINES: Final = 1000
"""That wait for a service to read them; a service with more is closed."""
NOT_READING: Final = 1013
TIMEOUT: Final = "timeout"
CANCELLED: Final = "cancelled"
_encode = msgspec.json.Encoder().encode


class Call:
    """One question to a service, until it is answered or given up."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.answer: str | None = None
        self.failure = ""
        self.over = trio.Event()

    def end(self, answer: str | None = None, failure: str = "") -> None:
        """It is answered, or will never be; what counts is the first."""
        if not self.over.is_set():
            self.answer, self.failure = answer, failure
            self.over.set()


class Service:
    """One connection: what it offers, what it has to answer, and the lines it has yet to read."""

    def __init__(self, principal: Principal) -> None:
        self.principal = principal
        self.tools: dict[str, Tool] = {}
        self.calls: dict[str, Call] = {}
        self.asked_at = 0
        self.ending: tuple[int, str] | None = None
        """Code and reason, once the connection shall be closed."""
        self._lines: deque[bytes] = deque()
        self._changed = trio.lowlevel.ParkingLot()

    def tell(self, message: Message) -> None:
        """Have the service read a line, or be closed because it reads none."""
        if len(self._lines) >= MAX_UNREAD_LINES:
            self.end(NOT_READING, "the service does not read what it is told")
            return
        self._lines.append(_encode(message))
        self._changed.unpark_all()

    def end(self, code: int, reason: str) -> None:
        """The connection is to be closed, when the service has been told what is left."""
        self.ending = self.ending or (code, reason)
        self._changed.unpark_all()

    async def next_lines(self) -> list[bytes]:
        """Wait for something to tell; returns all of it, and nothing at the end."""
        while not self._lines and self.ending is None:
            await self._changed.park()
        lines = list(self._lines)
        self._lines.clear()
        return lines


class ToolServices:
    """The services there are. Offers their tools to sessions, as ``rtpipe.session.tools.HostTools``."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self.outcomes: Counter[str] = Counter()
        """Calls by how they ended, and results that nobody waited for."""
        self._changed = changed
        self._services: list[Service] = []
        self._turn = 0
        self._ended = trio.lowlevel.ParkingLot()

    # --- for sessions ---------------------------------------------------------------------------------------

    def offered_tools(self) -> list[Tool]:
        """Every tool once, as the newest connection that offers it describes it."""
        tools: dict[str, Tool] = {}
        for service in self._services:
            tools |= service.tools
        return list(tools.values())

    async def answer_tool(self, session: str, principal: str, call: ToolCall, timeout_s: float) -> str | None:
        """Ask the service that has least to do. Raises ``HookFailed``."""
        offering = [each for each in self._services if call.name in each.tools]
        if not offering:
            return None
        _require_object(call)
        service = min(offering, key=lambda each: (len(each.calls), each.asked_at))
        if len(service.calls) >= MAX_OPEN_CALLS:
            raise self._failed("busy", call.name, f"{MAX_OPEN_CALLS} calls wait for each of its services")
        call_id = f"rtp_{secrets.token_hex(8)}"
        asked = service.calls[call_id] = Call(call.name)
        self._turn += 1
        service.asked_at = self._turn
        question = CallTool(
            call_id=call_id,
            name=call.name,
            arguments=msgspec.Raw(call.arguments.encode()),
            session=session,
            principal=principal,
            deadline_ms=int(timeout_s * 1000),
        )
        service.tell(question)
        try:
            with trio.fail_after(timeout_s):
                await asked.over.wait()
        except trio.TooSlowError:
            service.tell(CancelTool(call_id=call_id, reason=TIMEOUT))
            raise self._failed(TIMEOUT, call.name, f"took longer than {timeout_s:g} s") from None
        except trio.Cancelled as exc:
            reason = TIMEOUT if exc.source == "deadline" else exc.reason or CANCELLED
            service.tell(CancelTool(call_id=call_id, reason=reason))
            self.outcomes[CANCELLED] += 1
            raise
        finally:
            service.calls.pop(call_id, None)
        if asked.failure:
            raise self._failed("failed", call.name, asked.failure)
        self.outcomes["answered"] += 1
        return asked.answer

    def _failed(self, outcome: str, name: str, why: str) -> HookFailed:
        self.outcomes[outcome] += 1
        log.warning("tool %s of a service: %s", name, why)
        return HookFailed(HOST, f"tool {name}", why)

    # --- for connections ------------------------------------------------------------------------------------

    @property
    def connected_count(self) -> int:
        return len(self._services)

    @contextmanager
    def connected(self, principal: Principal) -> Iterator[Service]:
        """A service is there. Raises ``Refused`` when there are too many.

        When it is gone its tools are, and its calls fail at once.
        """
        if len(self._services) >= MAX_SERVICES:
            raise Refused(503, "too_many_services", f"{MAX_SERVICES} tool services are connected already.")
        service = Service(principal)
        self._services.append(service)
        try:
            yield service
        finally:
            self._services.remove(service)
            for call in service.calls.values():
                call.end(failure="its service is gone")
            if service.tools:
                log.info("tools of %s are gone: %s", principal.id, ", ".join(service.tools))
                self._changed()
            self._ended.unpark_all()

    def register(self, service: Service, tools: list[msgspec.Raw]) -> None:
        """Offer these and no others of *service*; it is told which are not, and why."""
        accepted: dict[str, Tool] = {}
        for raw in tools:
            try:
                tool = _tool(raw)
                self._check(service, tool.name, accepted)
            except Refused as refused:
                name = _name_in(raw)
                service.tell(ErrorMessage(code=refused.code, message=refused.message, name=name))
            else:
                accepted[tool.name] = tool
        service.tell(ToolsRegistered(names=list(accepted)))
        if accepted != service.tools:
            log.info("tools of %s: %s", service.principal.id, ", ".join(accepted) or "none")
            service.tools = accepted
            # The newest description counts.
            self._services.remove(service)
            self._services.append(service)
            self._changed()

    def _check(self, service: Service, name: str, accepted: dict[str, Tool]) -> None:
        allowed = service.principal.tools
        if allowed is not None and not any(fnmatchcase(name, pattern) for pattern in allowed):
            raise Refused(403, "name_not_allowed", f"This caller may not offer a tool called {name}.")
        if name in accepted:
            raise Refused(409, "name_twice", f"The tool {name} stands twice in this registration.")
        if len(accepted) >= MAX_TOOLS:
            raise Refused(413, "too_many_tools", f"A connection may offer {MAX_TOOLS} tools.")
        if any(name in each.tools and each.principal.id != service.principal.id for each in self._services):
            raise Refused(409, "name_taken", f"Somebody else offers a tool called {name}.")

    def answered(self, service: Service, result: ToolResult) -> None:
        """The result of a call, if anybody waits for it."""
        call = service.calls.get(result.call_id)
        if call is None or call.over.is_set():
            self.outcomes["unawaited"] += 1
            message = "Nobody waits for the result of this call."
            service.tell(ErrorMessage(code="unknown_call", message=message, call_id=result.call_id))
        elif (result.result is msgspec.UNSET) == (result.error is msgspec.UNSET):
            call.end(failure="its service gave not one of result and error")
            message = "A result has one of result and error."
            service.tell(ErrorMessage(code="bad_result", message=message, call_id=result.call_id))
        elif result.error is not msgspec.UNSET:
            call.end(tool_error(str(result.error), result.retry))
        else:
            assert isinstance(result.result, msgspec.Raw)
            self._give(service, call, result.call_id, bytes(result.result))

    def _give(self, service: Service, call: Call, call_id: str, text: bytes) -> None:
        if len(text) > MAX_RESULT_BYTES:
            call.end(failure=f"its result has more than {MAX_RESULT_BYTES} bytes")
            message = f"A result may have {MAX_RESULT_BYTES} bytes."
            service.tell(ErrorMessage(code="result_too_large", message=message, call_id=call_id))
            return
        try:
            # Only a text is read: numbers may be larger than any here, and are the model's to read.
            call.end(msgspec.json.decode(text, type=str) if text.startswith(b'"') else text.decode())
        except (msgspec.MsgspecError, UnicodeDecodeError):
            call.end(failure="its result is no JSON")
            message = "A result has to be JSON in UTF-8."
            service.tell(ErrorMessage(code="bad_result", message=message, call_id=call_id))

    async def end(self, code: int, reason: str) -> None:
        """Close every connection, and wait until all are gone."""
        for service in self._services:
            service.end(code, reason)
        while self._services:
            await self._ended.park()


def _require_object(call: ToolCall) -> None:
    try:
        msgspec.json.decode(call.arguments, type=dict[str, msgspec.Raw])
    except (msgspec.MsgspecError, UnicodeEncodeError, RecursionError):
        raise HookFailed(HOST, f"tool {call.name}", "its arguments are no JSON object") from None


def _tool(raw: msgspec.Raw) -> Tool:
    """One tool as it was registered. Raises ``Refused``."""
    if len(bytes(raw)) > MAX_TOOL_BYTES:
        raise Refused(413, "tool_too_large", f"A tool may have {MAX_TOOL_BYTES} bytes of JSON.")
    try:
        return msgspec.json.decode(raw, type=OfferedTool).tool()
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
        why = str(exc) if isinstance(exc, msgspec.ValidationError) else "it is no JSON"
        raise Refused(400, "bad_tool", f"This is no tool: {why}.") from None


def _name_in(raw: msgspec.Raw) -> str | None:
    """What a tool that is not offered calls itself, cut to a length that can be shown."""
    try:
        name = msgspec.json.decode(raw, type=dict[str, msgspec.Raw]).get("name")
        return None if name is None else msgspec.json.decode(name, type=str)[:64]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
