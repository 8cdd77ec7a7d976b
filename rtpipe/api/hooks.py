"""The hooks: what the host calls in a plugin, and how long it waits.

The specifications below are what pluggy validates plugins against. A plugin implements a hook by
defining a method of that name; event hooks have names of the author's choosing and are marked with
``@on_client`` and the like. A method may leave out parameters it does not need.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import pluggy

if TYPE_CHECKING:
    from rtpipe.api.event import Event
    from rtpipe.api.facts import Fact
    from rtpipe.api.principal import Principal
    from rtpipe.api.request import ConnectRequest, DialRequest, Health, Route
    from rtpipe.api.session import Draft, Session
    from rtpipe.api.tools import Tool, ToolCall
    from rtpipe.api.verdicts import Verdict

PROJECT = "rtpipe"
HANDSHAKE_LIMIT_S = 8.0

hookspec = pluggy.HookspecMarker(PROJECT)
F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class EventHook:
    """What ``@on_client("a", "b")`` leaves on a method. No types: every event of that direction."""

    hook: str
    types: tuple[str, ...]
    watch: bool


def _marker(hook: str, watch: bool) -> Callable[..., Callable[[F], F]]:
    def decorate(*types: str) -> Callable[[F], F]:
        for kind in types:
            if not isinstance(kind, str):
                raise TypeError(f"write @{'watch' if watch else 'on'}_…() with parentheses and event types")

        def mark(function: F) -> F:
            if hasattr(function, "rtpipe_event_hook"):
                raise TypeError(f"{function.__name__} is marked twice: write one marker with all its types")
            function.rtpipe_event_hook = EventHook(hook, types, watch)  # type: ignore[attr-defined]
            return function

        return mark

    return decorate


on_client = _marker("client_event", watch=False)
on_client.__doc__ = """Decide about client events of these types (none: all): return a verdict."""
on_server = _marker("server_event", watch=False)
on_server.__doc__ = """Decide about server events of these types (none: all): return a verdict."""
watch_client = _marker("client_event", watch=True)
watch_client.__doc__ = """See client events as they enter this stage, off the path; nothing is returned."""
watch_server = _marker("server_event", watch=True)
watch_server.__doc__ = """See server events as they enter this stage, off the path; nothing is returned."""

# Seconds an async implementation may take; None: the host sets no limit of its own.
LIMITS: dict[str, float | None] = {
    "startup": 30.0,
    "shutdown": 5.0,
    "config_changed": 1.0,
    "authenticate": HANDSHAKE_LIMIT_S,
    "still_allowed": 1.0,
    "current_limits": 1.0,
    "session_open": HANDSHAKE_LIMIT_S,
    "session_close": 5.0,
    "upstream_dial": HANDSHAKE_LIMIT_S,
    "client_attached": 1.0,
    "client_detached": 1.0,
    "upstream_replaced": 1.0,
    "limits_changed": 1.0,
    "configure": 0.2,
    "client_event": 0.2,
    "server_event": 0.2,
    "fact": 0.2,
    "tools": 0.2,
    "tool_call": None,
    "warnings": 1.0,
    "routes": 1.0,
    "health": 1.0,
    "forget": 10.0,
}


class Hooks:
    """Every hook a plugin may implement."""

    @hookspec
    def startup(self) -> None:
        """Once for an instance, before any listener opens. Failing stops the daemon from starting."""

    @hookspec
    def shutdown(self) -> None:
        """Once for an instance, after its last session, in reverse chain order, shielded."""

    @hookspec
    def config_changed(self, before: Any) -> None:
        """A reload has changed the options: ``self.config`` are the new ones, *before* those until now.

        A plugin that has this hook keeps its instance, and its sessions, whatever options change; one that
        has not gets a new instance for new sessions. Called when all else in the reload is done. Failing
        fails the reload: ``self.config`` is what it was, and the hook is called once more, with the options
        that were not taken as *before*.
        """

    @hookspec
    def authenticate(self, request: "ConnectRequest") -> "Principal | None":
        """At every connection of any role, before a session exists; the first answer wins.

        ``None``: not mine to say. Raise ``Refused`` to turn the caller away. Authenticate, open and
        dial share one limit.
        """

    @hookspec
    def still_allowed(self, principal: "Principal") -> "bool | None":
        """Whether somebody who was let in may stay: asked about everybody in service after each reload, and
        whenever a plugin calls ``judge_again()``.

        ``False`` ends the session, tap or tool service. ``None``: not mine to say.
        """

    @hookspec
    def current_limits(self, principal: "Principal") -> "Mapping[str, str | int | float] | None":
        """The ``limits`` by now of somebody who was let in: asked about every session whenever
        ``still_allowed`` is; the first answer that is not ``None`` wins, and becomes those of
        ``session.principal``.
        """

    @hookspec
    def session_open(self, session: "Session[Any]") -> None:
        """Once for a session, in chain order, before the upstream is dialled. May raise ``Refused``."""

    @hookspec
    def session_close(self, session: "Session[Any]", ending: Any) -> None:
        """Once for a session whose open returned, in reverse chain order, shielded.

        *ending* says code, reason and cause.
        """

    @hookspec
    def upstream_dial(self, session: "Session[Any]", request: "DialRequest") -> None:
        """At every dial: change URL, model or headers of *request* in place. May raise ``Refused``."""

    @hookspec
    def client_attached(self, session: "Session[Any]") -> None:
        """A client connection now serves the session."""

    @hookspec
    def client_detached(self, session: "Session[Any]", cause: str) -> None:
        """The client connection is gone; the session may live on."""

    @hookspec
    def upstream_replaced(self, session: "Session[Any]", loss: str) -> None:
        """Another upstream connection takes over: the last one is heard no more, the next one not yet.

        *loss* names what could not be kept. What was sent and not answered the host sends again, and what ran
        has ended with a ``response.done`` of origin host; what is sent now comes behind that.
        """

    @hookspec
    def limits_changed(self, session: "Session[Any]") -> None:
        """The ``limits`` of ``session.principal`` are others than before."""

    @hookspec
    def configure(self, session: "Session[Any]", draft: "Draft") -> None:
        """Compose the session configuration: at open, at each client update, when a stage asks for it
        with ``session.reconfigure()``, and for each new upstream.

        The draft starts as what the client asked for; change it with ``draft.set`` and ``draft.remove``.
        Must depend on nothing but the draft and the stage's state: it is called again and again.
        """

    @hookspec
    def client_event(self, session: "Session[Any]", event: "Event") -> "Verdict":
        """Each client event of the types given to ``@on_client``; the answer is a verdict."""

    @hookspec
    def server_event(self, session: "Session[Any]", event: "Event") -> "Verdict":
        """Each server event of the types given to ``@on_server``; the answer is a verdict."""

    @hookspec
    def fact(self, session: "Session[Any] | None", fact: "Fact") -> None:
        """What became of something, off the path. *session* is None for facts outside any session."""

    @hookspec
    def tools(self, session: "Session[Any]") -> "list[Tool]":
        """The tools this plugin offers to this session, from memory: it is asked again and again.

        When the answer would be another one, call ``session.reconfigure()``. One that does not name
        *session* offers the same to every session, and ``rtpipe check`` asks it too, before ``startup``.
        """

    @hookspec
    def tool_call(self, session: "Session[Any]", call: "ToolCall") -> "str | None":
        """Answer a call; the first answer that is not None wins. The limit is the tool's own.

        ``{"status": "success", "result": …}`` and what ``tool_error`` makes reach the model as they are,
        any other text as a result.
        """

    @hookspec
    def warnings(self, tools: "list[Tool]") -> "list[str]":
        """What an operator should know of the chain as it is configured: a line each, for `rtpipe check`.

        Called before `startup`. *tools* are those that stages offer to every session.
        """

    @hookspec
    def routes(self) -> "list[Route]":
        """HTTP routes to add to every listener, and to the admin socket those for admins."""

    @hookspec
    def health(self) -> "Health":
        """One sentence on how the plugin fares, shown at ``/healthz``."""

    @hookspec
    def forget(self, name: str) -> str:
        """Erase what is kept about a session or a principal of this name, for `rtpipe forget`. Says in a few
        words what that was; empty where there was nothing. May be asked again about the same."""
