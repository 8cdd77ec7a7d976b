"""The base of every plugin."""

import argparse
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, Protocol, TypeVar, get_args, get_origin

import msgspec

from rtpipe.api.facts import Fact
from rtpipe.api.metrics import Metric
from rtpipe.api.store import Store

OnError = Literal["close", "drop", "pass"]


class NoConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The configuration of a plugin without options."""


ConfigT = TypeVar("ConfigT")
StateT = TypeVar("StateT")


@dataclass(frozen=True, slots=True)
class Command:
    """A verb a plugin adds to the ``rtpipe`` command line.

    With *asks_daemon* the host adds the options that find the running daemon, and *run* finds
    ``ask(method, target)`` in its namespace: one request to the admin socket, which returns the JSON of the
    answer, or raises ``ConfigError`` with what a person should read.
    """

    name: str
    help: str
    arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]
    asks_daemon: bool = False


class Host(Protocol):
    """What the host gives to one plugin instance."""

    @property
    def stage(self) -> str: ...

    @property
    def store(self) -> Store: ...

    @property
    def state_dir(self) -> Path: ...

    def record(self, fact: Fact) -> None: ...

    def start_soon(self, function: Callable[..., Awaitable[object]], *args: object) -> None: ...

    def tools_changed(self) -> None: ...

    def judge_again(self) -> None: ...

    def redact(self, text: str, tool: str) -> str: ...

    def metrics(self) -> Sequence[Metric]: ...


class Plugin(Generic[ConfigT, StateT]):
    """One configured plugin: ``class ResponseLock(Plugin[Config, State])``.

    Config is a frozen ``msgspec.Struct`` that forbids unknown fields; State is made anew, without
    arguments, for each session and is found at ``session.state``. Nothing that belongs to a session is
    kept on the plugin.
    """

    config_type: ClassVar[type] = NoConfig
    state_type: ClassVar[type] = type(None)

    on_error: ClassVar[OnError] = "close"
    """What a failing event hook does: close the session, drop the event, or pass it on. Fail closed
    unless the plugin's absence harms nobody."""
    on_error_choices: ClassVar[tuple[OnError, ...]] = ("close", "drop", "pass")
    """What an operator may set it to."""
    before: ClassVar[tuple[str, ...]] = ()
    """Plugins that must come later in the chain if they are in it."""
    after: ClassVar[tuple[str, ...]] = ()
    """Plugins that must come earlier in the chain if they are in it."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for base in getattr(cls, "__orig_bases__", ()):
            if get_origin(base) is Plugin:
                config, state = get_args(base)
                cls.config_type = NoConfig if config is type(None) or config is None else config
                cls.state_type = type(None) if state is None else state

    def __init__(self, config: ConfigT, host: Host) -> None:
        self.config = config
        self.host = host

    @property
    def stage(self) -> str:
        """This plugin's name in the chain."""
        return self.host.stage

    @property
    def store(self) -> Store:
        """Counters and records that outlive the process, in a namespace of this stage."""
        return self.host.store

    @property
    def state_dir(self) -> Path:
        """A private directory for what must last and is no record."""
        return self.host.state_dir

    def record(self, fact: Fact) -> None:
        """Record a fact that belongs to no session."""
        self.host.record(fact)

    def start_soon(self, function: Callable[..., Awaitable[object]], *args: object) -> None:
        """Run a task that lives as long as this instance; a failure is logged and counted."""
        self.host.start_soon(function, *args)

    def tools_changed(self) -> None:
        """Have every session composed anew: what ``tools`` returns is another list than before."""
        self.host.tools_changed()

    def judge_again(self) -> None:
        """Have ``still_allowed`` asked about everybody in service."""
        self.host.judge_again()

    def redact(self, text: str, tool: str = "") -> str:
        """*text* without what the operator's rules take out of what callers say. To be called on transcripts
        and the like before they leave the process. With *tool*, the text is the JSON of its arguments."""
        return self.host.redact(text, tool)

    def metrics(self) -> Sequence[Metric]:
        """What the gateway has counted so far."""
        return self.host.metrics()

    @classmethod
    def wants_persistence(cls, config: ConfigT) -> bool:  # noqa: ARG003 - for those that look at it
        """Whether, so configured, it makes principals with ``persist``. Then a configuration without a key to
        encrypt their sessions with is refused."""
        return False

    @classmethod
    def commands(cls) -> list[Command]:
        """Verbs to add to the command line; called without any configuration."""
        return []
