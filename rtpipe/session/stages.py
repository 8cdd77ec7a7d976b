"""The stages of one session: opened, called, told what happens, closed."""

from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING

from rtpipe.api.errors import HookFailed, Refused
from rtpipe.api.facts import Fact
from rtpipe.api.verdicts import Close
from rtpipe.chain.compile import Stage
from rtpipe.chain.guard import HookCall
from rtpipe.chain.walk import PLUGIN_FAILED
from rtpipe.session.closing import Ending
from rtpipe.session.view import StageView

if TYPE_CHECKING:
    from rtpipe.session.session import Session


class Stages:
    """Outside the walks of events, everything that hooks are asked goes through here."""

    def __init__(self, session: "Session") -> None:
        self._session = session
        self._chain = session.chain
        self._guard = session.guard
        self.absent: set[str] = set()
        """The names of those that are left out of the session."""
        self._views: dict[str, StageView] = {}
        self._opened: list[str] = []

    async def open(self, session: "Session") -> None:
        """Make their states and call their ``session_open``, in chain order. Raises ``Refused``."""
        opens = {call.stage: call for call in self._chain.calls("session_open")}
        for stage in self._chain.stages:
            try:
                await self._open(session, stage, opens.get(stage.name))
            except HookFailed:
                if stage.on_error != "pass":
                    raise Refused(
                        503, "session_refused", "The gateway could not open this session."
                    ) from None
                self.absent.add(stage.name)
                self._session.turns.gate(stage.name, on=False)

    async def _open(self, session: "Session", stage: Stage, call: HookCall | None) -> None:
        make = HookCall(stage.name, "State", lambda: StageView(session, stage), False, None, stage.on_error)
        self._views[stage.name] = await self._guard.call(make)
        if call is not None:
            await self._guard.call(call, self.view(stage.name))
        self._opened.append(stage.name)

    async def close(self, ending: Ending) -> None:
        """Call the ``session_close`` of those that had opened, in reverse."""
        for call in reversed(self._chain.calls("session_close")):
            if call.stage in self._opened:
                await self._guard.run(call, self.view(call.stage), ending)

    def forget(self) -> None:
        """The session is closed: what its stages hold on to is theirs."""
        self._views.clear()

    def view(self, stage: str) -> StageView:
        """What a stage's hooks get as ``session``."""
        return self._views[stage]

    def calls(self, hook: str) -> Iterator[HookCall]:
        """A hook's implementations in chain order, of the stages that are here: not of those that were left
        out, and none before they are opened or once they are forgotten."""
        here = self._views
        return (
            call for call in self._chain.calls(hook) if call.stage in here and call.stage not in self.absent
        )

    async def tell(self, hook: str, *args: object) -> None:
        """Call a hook of every stage that has it; what one that fails means is for its policy to say."""
        for call in self.calls(hook):
            if not await self._guard.run(call, self.view(call.stage), *args):
                self.failed(call)

    def show(self, fact: Fact) -> None:
        """Have those see a fact that want to, off the path."""
        for call in self.calls("fact"):
            self._session.watchers.show(call, self.view(call.stage), fact)

    def failed(self, call: HookCall) -> None:
        """A hook that is no event hook has failed: there is nothing to drop, so it is close or go on."""
        if call.on_error == "close":
            self._session.act_on_close(Close(PLUGIN_FAILED, f"plugin {call.stage} failed"), call.stage)

    def run_now(self, call: HookCall) -> None:
        """Call something of a stage's that is no ``async def``, outside any walk."""
        try:
            self._guard.call_now(call)
        except HookFailed:
            self.failed(call)
        except Refused:
            self._guard.refused(call)
            self.failed(call)

    def start(self, stage: Stage, function: Callable[..., Awaitable[object]], *args: object) -> None:
        """Start a task of a stage's, which ends with the session."""
        name = getattr(function, "__name__", type(function).__name__)
        call = HookCall(stage.name, f"task {name}", function, True, None, stage.on_error)
        self._session.start(self._run, call, args)

    async def _run(self, call: HookCall, args: tuple[object, ...]) -> None:
        if not await self._guard.run(call, *args):
            self.failed(call)
