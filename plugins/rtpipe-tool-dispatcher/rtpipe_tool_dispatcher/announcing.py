"""Which of the offered tools the model is told of, and what an operator should know about them."""

import logging
from collections import Counter
from collections.abc import Collection, Sequence
from fnmatch import fnmatchcase

from rtpipe import Tool
from rtpipe_tool_dispatcher.arguments import Schemas
from rtpipe_tool_dispatcher.config import Config, ToolOptions
from rtpipe_tool_dispatcher.requests import is_name

log = logging.getLogger("rtpipe_tool_dispatcher")

_WARNINGS_KEPT = 1000


class Announcing:
    """Chooses tools for all sessions of one plugin instance; warns once of each."""

    def __init__(self, config: Config, schemas: Schemas) -> None:
        self._config = config
        self._schemas = schemas
        self._warned: set[str] = set()

    def usable(
        self, offered: Sequence[Tool], allowed: Collection[str] | None, taken: Collection[str]
    ) -> dict[str, Tool]:
        """The tools to announce, by name: what the principal may use, and the client has not declared.

        *offered* has each name once. *allowed* are names, or patterns with ``*`` and ``?``; None allows all.
        *taken* are the client's.
        """
        found: dict[str, Tool] = {}
        for tool in offered:
            for complaint in self.complaints([tool]):
                self._warn(complaint)
            if tool.name in taken:
                self._warn(f"tool {tool.name!a}: the client declares one of this name, which comes first")
            elif self._refusal(tool) is None and (
                allowed is None or any(fnmatchcase(tool.name, pattern) for pattern in allowed)
            ):
                found[tool.name] = self._config.tools.get(tool.name, ToolOptions()).over(tool)
        return found

    def complaints(self, tools: Sequence[Tool]) -> list[str]:
        """One line for each thing that is wrong with a tool."""
        found = [
            f"tool {name!a} is offered twice: the first stage in the chain has it"
            for name, count in Counter(tool.name for tool in tools).items()
            if count > 1
        ]
        for tool in tools:
            if (why := self._refusal(tool)) is not None:
                found.append(f"tool {tool.name!a} is left out: {why}")
            elif not tool.parameters:
                found.append(f"tool {tool.name!a} has no schema: its arguments are not checked")
            if len(tool.description) > self._config.max_description_chars:
                found.append(
                    f"tool {tool.name!a}: a description of {len(tool.description)} characters makes models "
                    f"invent functions: shorten it to {self._config.max_description_chars} "
                    "(max_description_chars)"
                )
        return found

    def _refusal(self, tool: Tool) -> str | None:
        """Why the upstream would refuse the tool, and with it everything else that is configured."""
        if not is_name(tool.name):
            return "its name must be 1 to 64 letters, digits, _ and -"
        return self._schemas.fault(tool)

    def _warn(self, text: str) -> None:
        if text not in self._warned and len(self._warned) < _WARNINGS_KEPT:
            self._warned.add(text)
            log.warning("%s", text)
