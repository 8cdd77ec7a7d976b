"""The dashboard, the alert rules and the reference name metrics and labels that there are."""

import json
import re
from pathlib import Path

import pytest

from rtpipe.daemon.metrics import METRICS, exposed, reference

GRAFANA = Path(__file__).parents[2] / "config/grafana"
_NAME = re.compile(r"\brtpipe_[a-z_]+")


def samples():
    """Every name a sample may have, with its labels."""
    found = {}
    for name, described in METRICS.items():
        if described.kind == "histogram":
            for suffix in ("_bucket", "_sum", "_count"):
                found[name + suffix] = {*described.labels, "le"}
        else:
            found[exposed(name)] = set(described.labels)
    return found


def expressions():
    board = json.loads((GRAFANA / "rtpipe.json").read_text("utf-8"))
    for panel in board["panels"]:
        for target in panel["targets"]:
            yield target["expr"], re.findall(r"{{(\w+)}}", target["legendFormat"])
    for rule in re.findall(r"expr: (.+)\n", (GRAFANA / "alerts.yml").read_text("utf-8")):
        yield rule, []


@pytest.mark.parametrize(("expression", "legend"), list(expressions()))
def test_names_and_labels(expression, legend):
    known = samples()
    names = _NAME.findall(expression)
    assert names
    assert set(names) <= set(known)
    labels = {"instance"}.union(*(known[name] for name in names))
    grouped = re.findall(r"by \(([^)]*)\)", expression)
    used = {word.strip() for group in grouped for word in group.split(",")}
    used |= set(re.findall(r"[{,](\w+)=", expression)) | set(legend)
    assert used <= labels


def test_the_dashboard_shows_most_of_what_there_is():
    text = (GRAFANA / "rtpipe.json").read_text("utf-8")
    assert sum(name in text for name in METRICS) >= 20


def test_the_reference_has_every_metric():
    text = reference()
    assert all(f"`{exposed(name)}`" in text for name in METRICS)
