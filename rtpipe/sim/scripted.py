"""Answers that a scenario script says."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from .answers import Answer, Call, Step
from .conversation import Item
from .failures import FAILURES, Failure
from .faults import session_fault
from .scenario import Reply, Scenario
from .scenario import Step as Scripted


def scripted(scenario: Scenario, number: int, context: Sequence[Item]) -> Answer | None:
    """What the script says for the session's `number`-th response to this context, if it says something."""
    texts = [text for item in context if item.speaker == "user" for text in item.texts()]
    reply = scenario.reply_to(number, texts)
    return _answer(reply) if reply else None


def _answer(reply: Reply) -> Answer:
    failure = None
    if reply.end is not None:
        unknown = Failure(reply.end, "server_error", "The response failed, as the script says.")
        failure = FAILURES.get(reply.end, unknown)._replace(midway=bool(reply.steps))
    return Answer(
        steps=[_step(step) for step in reply.steps] or ["I say nothing of note."],
        failure=failure,
        pauses_s=[step.after_s for step in reply.steps],
        fault=session_fault(reply.fault) if reply.fault else None,
    )


def _step(step: Scripted) -> Step:
    if step.say is not None:
        return step.say
    given = step.arguments
    arguments = given if isinstance(given, str) else msgspec.json.encode(given).decode()
    return Call(step.call or "", arguments)
