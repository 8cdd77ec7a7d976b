"""The public surface, as it was last agreed on."""

import re

import rtpipe
from tests.architecture.surface import surface
from tests.architecture.tree import ROOT

HINT = (
    "The public surface has changed. If that was meant, run `make generate`, tell plugin authors in "
    "plugins/CHANGES.md, and raise rtpipe.API_VERSION if plugins written before will not work."
)


def test_the_recorded_surface_is_fresh():
    recorded = (ROOT / "tests/architecture/public_api.txt").read_text("utf-8")
    assert surface().splitlines() == recorded.splitlines(), HINT


def test_everything_exported_is_recorded():
    text = surface()
    for name in rtpipe.__all__:
        assert re.search(rf"(?m)(^|\s){name}\b", text), name


def test_the_changes_speak_of_this_version():
    text = (ROOT / "plugins/CHANGES.md").read_text("utf-8")
    assert re.search(r"(?m)^## API (\d+)", text)[1] == str(rtpipe.API_VERSION)
