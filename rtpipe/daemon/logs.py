"""Log lines: one for each fact an operator wants to see, on stderr, printable whatever is in them."""

import logging
import sys

from rtpipe.api import facts
from rtpipe.api.facts import Fact
from rtpipe.daemon.config_files import one_line

log = logging.getLogger("rtpipe.facts")


class OneLineFormatter(logging.Formatter):
    """A record is one line, whatever a caller managed to get into it; tracebacks follow, indented."""

    def format(self, record: logging.LogRecord) -> str:
        head, *rest = super().format(record).split("\n")
        if not record.exc_info:
            return one_line("\n".join([head, *rest]))
        return "\n".join([one_line(head), *(f"  {one_line(line)}" for line in rest)])


def set_up(level: str) -> None:
    """Write log lines of *level* and above to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLineFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())


def log_fact(fact: Fact) -> None:
    """The line a fact is worth; most are worth none."""
    match fact:
        case facts.SessionOpened():
            log.info(
                "session %s opened: principal %s, model %s, listener %s, upstream %s",
                fact.session,
                fact.principal,
                fact.model,
                fact.listener,
                fact.upstream,
            )
        case facts.SessionClosed():
            log.info(
                "session %s closed by %s after %.1f s: %d %s",
                fact.session,
                fact.cause,
                fact.duration_s,
                fact.code,
                fact.reason or "(no reason)",
            )
        case facts.Refused():
            log.info(
                "%s refused by %s: %s (%s)",
                f"event of session {fact.session}" if fact.session else f"connection from {fact.address}",
                fact.stage,
                fact.message,
                fact.code,
            )
        case facts.Waited(outcome="expired"):
            log.warning("session %s: %s gave up a held %s", fact.session, fact.stage, fact.type)
        case facts.Alerted():
            log.warning("alert %s by %s: %s", fact.name, fact.stage, fact.message)
        case facts.LegChanged(change="replaced"):
            log.info("session %s: %s leg replaced: %s", fact.session, fact.leg, fact.cause)
        case _:
            log.debug("%s", fact)
