"""Log lines: one for each fact an operator wants to see, on stderr, printable whatever is in them."""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

import msgspec

from rtpipe.api import facts
from rtpipe.api.facts import Fact
from rtpipe.daemon.config_files import one_line
from rtpipe.daemon.config_observe import Log

log = logging.getLogger("rtpipe.facts")


class OneLineFormatter(logging.Formatter):
    """A record is one line, whatever a caller managed to get into it; tracebacks follow, indented."""

    def format(self, record: logging.LogRecord) -> str:
        head, *rest = super().format(record).split("\n")
        if not record.exc_info:
            return one_line("\n".join([head, *rest]))
        return "\n".join([one_line(head), *(f"  {one_line(line)}" for line in rest)])


class JsonFormatter(logging.Formatter):
    """A record is one JSON object in ASCII, with the fields of the fact it is about."""

    def format(self, record: logging.LogRecord) -> str:
        told: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        fact: Fact | None = getattr(record, "fact", None)
        if fact is not None:
            told["fact"] = type(fact).__name__
            told["fields"] = msgspec.to_builtins(fact)
        if record.exc_info:
            told["traceback"] = self.formatException(record.exc_info)
        # What is not ASCII is escaped: lines and terminals' commands among it.
        return json.dumps(told)


def set_up(config: Log) -> None:
    """Write log lines as *config* has it to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    if config.format == "json":
        handler.setFormatter(JsonFormatter())
    else:
        handler.setFormatter(OneLineFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(config.level.upper())


def log_fact(fact: Fact) -> None:
    """The line a fact is worth; most are worth none."""
    level, text, *args = _line(fact)
    log.log(level, text, *args, extra={"fact": fact})


def _line(fact: Fact) -> tuple[Any, ...]:
    match fact:
        case facts.SessionOpened():
            return (
                logging.INFO,
                "session %s opened: principal %s, model %s, listener %s, upstream %s",
                fact.session,
                fact.principal,
                fact.model,
                fact.listener,
                fact.upstream,
            )
        case facts.SessionClosed():
            return (
                logging.INFO,
                "session %s closed by %s after %.1f s: %d %s; "
                "principal %s, model %s, %d turns, %d tokens, $%.6f%s",
                fact.session,
                fact.cause,
                fact.duration_s,
                fact.code,
                fact.reason or "(no reason)",
                fact.principal,
                fact.model,
                fact.turns,
                fact.tokens,
                fact.micro_usd / 1e6,
                f"; lost: {fact.lost}" if fact.lost else "",
            )
        case facts.Refused():
            return (
                logging.INFO,
                "%s refused by %s: %s (%s)",
                f"event of session {fact.session}" if fact.session else f"connection from {fact.address}",
                fact.stage,
                fact.message,
                fact.code,
            )
        case facts.Waited(outcome="expired"):
            text = "session %s: %s gave up a held %s"
            return (logging.WARNING, text, fact.session, fact.stage, fact.type)
        case facts.Alerted():
            return (logging.WARNING, "alert %s by %s: %s", fact.name, fact.stage, fact.message)
        case facts.Operated():
            return (logging.INFO, "%s by %s: %s", fact.action, fact.by, fact.what)
        case facts.LegChanged(change="replaced" | "resumed"):
            text = "session %s: %s leg %s; not carried over: %s"
            return (logging.INFO, text, fact.session, fact.leg, fact.change, fact.cause or "nothing")
        case facts.LegChanged(change="lost" | "parked"):
            text = "session %s: %s leg %s: %s"
            return (logging.INFO, text, fact.session, fact.leg, fact.change, fact.cause)
        case _:
            return (logging.DEBUG, "%s", fact)
