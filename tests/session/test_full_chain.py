"""Every kind of stage in one session, over several connections: nothing is lost, nothing done twice."""

from typing import Any

import pytest

from rtpipe import facts
from tests.session.full_chain import GATES, away_after, boundaries, events_of_first, run
from tests.session.outcome import item_text

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


def test_a_request_that_waits_is_answered_by_the_next_model() -> None:
    events = events_of_first(run())
    # The third request waits until the second is answered.
    ended = [count for count, event in enumerate(events) if event["type"] == "response.done"][1]
    outcome = run(f"drop after {ended - 2} events")
    assert outcome.faults() == []
    answers = [event["response"] for event in outcome.caller.of("response.done")]
    numbered = {(each["metadata"] or {}).get("number"): each["status"] for each in answers}
    assert numbered["3"] == "completed"
    assert any(f.stage == "response-lock" and f.outcome == "released" for f in outcome.facts(facts.Waited))


def test_a_tool_that_runs_meanwhile_runs_once_and_its_result_is_told_once() -> None:
    events = events_of_first(run())
    ended = (count for count, event in enumerate(events, 1) if event["type"] == "response.done")
    called = next(count for count in ended if "'name': 'slow'" in str(events[count - 1]))
    outcome = run(f"drop after {called} events")
    assert outcome.faults() == []
    assert outcome.chain.plugin("offer").answers == ["fast-0", "slow-1", "late-2", "fast-3", "slow-4"]
    items = [event["item"] for event in outcome.said("conversation.item.added", outcome.upstreams.logs[-1])]
    (result,) = [item for item in items if "slow-1" in item_text(item) and item.get("role") != "assistant"]
    assert result["role"] == "system"


def test_an_answer_that_was_cut_costs_what_was_reserved_for_it() -> None:
    outcome = run("drop before response.output_text.done")
    assert outcome.faults() == []
    ((reservation, entry),) = [each for each in outcome.entries.items() if each[1]["doubt"]]
    assert (entry["doubt"], entry["status"]) == ("connection lost", "failed")
    assert entry["micro_usd"] == outcome.disk.reserved[reservation] == outcome.disk.settled[reservation] > 0


def test_a_session_over_several_connections_is_one_trace() -> None:
    outcome = run("drop after 100 events", after_each=away_after(300, 3.0))
    assert outcome.faults() == []
    changes = [(fact.leg, fact.change) for fact in outcome.facts(facts.LegChanged)]
    assert changes[2:] == [
        ("upstream", "lost"),
        ("upstream", "replaced"),
        ("client", "parked"),
        ("client", "resumed"),
    ]
