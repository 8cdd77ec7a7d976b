"""Every kind of stage in one session, over several connections: nothing is lost, nothing done twice."""

from typing import Any

import pytest

from rtpipe import facts
from tests.session.full_chain import GATES, away_after, boundaries, run

NEAR_ITS_CAP = "0.14"
"""Dollars: what the whole conversation costs, so that turns are gated in its midst, and a goodbye ends it."""


def test_undisturbed_it_is_in_order() -> None:
    outcome = run()
    assert outcome.faults() == []
    assert outcome.chain.plugin("offer").answers == ["fast-0", "slow-1", "late-2", "fast-3", "slow-4"]
    (closed,) = outcome.facts(facts.SessionClosed)
    assert (closed.code, outcome.caller.creates, len(outcome.upstreams.logs)) == (1000, 10, 1)
    waited = {(fact.stage, fact.type) for fact in outcome.facts(facts.Waited)}
    assert waited >= {
        ("image-compressor", "conversation.item.create"),
        ("input-guardrail", "response.create"),
        ("response-lock", "response.create"),
        ("cost-governor", "response.create"),
    }
    asked = [create for create in outcome.said("response.created") if create["response"]["metadata"]]
    assert sum("rtpipe_filler" in create["response"]["metadata"] for create in asked) == 3


@pytest.mark.parametrize(
    ("options", "step"),
    [
        pytest.param({}, 37, id="every-turn-waits"),
        pytest.param({"without": GATES, "retries": True}, 41, id="asked-again"),
        pytest.param({"without": GATES, "budget_usd": NEAR_ITS_CAP}, 61, id="near-its-cap"),
        pytest.param({"outage_s": 12.0}, 79, id="a-long-outage"),
    ],
)
def test_wherever_the_upstream_is_cut(options: dict[str, Any], step: int) -> None:
    for count in boundaries(run(**options))[1::step]:
        outcome = run(f"drop after {count} events", **options)
        assert (count, outcome.faults(), len(outcome.upstreams.logs)) == (count, [], 2)


@pytest.mark.parametrize(
    ("options", "seconds", "step"),
    [
        pytest.param({}, 3.0, 131, id="for-a-moment"),
        pytest.param({"without": GATES, "budget_usd": NEAR_ITS_CAP}, 10.0, 197, id="near-its-cap"),
    ],
)
def test_wherever_the_client_is_away(options: dict[str, Any], seconds: float, step: int) -> None:
    for count in range(1, len(run(**options).caller.events), step):
        outcome = run(after_each=away_after(count, seconds), **options)
        assert (count, outcome.faults()) == (count, [])
        assert [fact.change for fact in outcome.facts(facts.LegChanged)].count("parked") == 1


def test_a_cap_that_is_reached_while_the_client_is_away_ends_the_session() -> None:
    options: dict[str, Any] = {"without": GATES, "budget_usd": NEAR_ITS_CAP}
    last = len(run(**options).caller.events) - 40
    outcome = run(after_each=away_after(last, 50.0), **options)
    assert outcome.faults() == []
    assert (outcome.was_ended, outcome.caller.connections) == (True, 1)
