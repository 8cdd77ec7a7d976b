"""However the sample is spoilt: it loads, or one printable line says where."""

import os
import re
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rtpipe import ConfigError
from rtpipe.daemon.config_load import load

HOSTS, RULE, PLUGINS = (
    (Path(__file__).parents[2] / "config/rtpipe.toml").read_text("utf-8").partition("\n# ---- ")
)
# With the host's commented options too, so that every one of them is spoilt now and then; `token` is an
# upstream's of another kind.
SAMPLE = (re.sub(r"(?m)^# ((?!token)[a-z_]+ = .*)$", r"\1", HOSTS) + RULE + PLUGINS).encode()

PIECES = [
    *(
        b'"',
        b"'",
        b'"""',
        b"[",
        b"]",
        b"[[",
        b"]]",
        b"{",
        b"}",
        b"=",
        b".",
        b",",
        b"#",
        b"\n",
        b"\r",
        b" ",
        b"\\",
    ),
    *(
        b"0",
        b"-1",
        b"1e400",
        b"nan",
        b"9" * 30,
        b"true",
        b"[]",
        b"{}",
        b"1979-05-27",
        b"\xff",
        b"\x00",
        b"\x1b[2J",
    ),
    *(
        "\u202e".encode(),
        b"[listen]\n",
        b"[plugins]\n",
        b"[[plugins]]\n",
        b"use = 3\n",
        b'x."a\\u001b" = 1\n',
    ),
]
changes = st.lists(
    st.tuples(
        st.integers(0, len(SAMPLE)), st.integers(0, 30), st.sampled_from(PIECES) | st.binary(max_size=4)
    ),
    min_size=1,
    max_size=4,
)


MANY = int(os.environ.get("MUTATIONS", "500"))
"""How many configurations of each kind; `make mutations` tries 10,000 in all."""


@settings(max_examples=MANY, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes)
def test_a_spoilt_sample_is_one_line_or_fine(tmp_path, edits):
    text = SAMPLE
    for at, removed, inserted in edits:
        text = text[:at] + inserted + text[at + removed :]
    one_line_or_fine(tmp_path / "rtpipe.toml", text)


LINES = SAMPLE.splitlines(keepends=True)


@settings(max_examples=MANY, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.integers(0, len(LINES) - 1),
    st.sampled_from(["drop", "double", "rename", "value"]),
    st.sampled_from(PIECES),
)
def test_a_spoilt_line_is_one_line_or_fine(tmp_path, number, how, value):
    spoilt = {
        "drop": b"",
        "double": LINES[number] * 2,
        "rename": b"x" + LINES[number],
        "value": LINES[number].partition(b"=")[0] + b"= " + value + b"\n",
    }[how]
    one_line_or_fine(tmp_path / "rtpipe.toml", b"".join([*LINES[:number], spoilt, *LINES[number + 1 :]]))


def one_line_or_fine(path, text):
    path.write_bytes(text)
    try:
        loaded = load(path)
        for stage in loaded.stages:
            stage.plugin_config(stage.load_plugin().config_type)
    except ConfigError as exc:
        complaint = str(exc)
        assert re.match(re.escape(str(path)) + r":[1-9]\d*: .", complaint)
        assert complaint.isprintable()
        assert int(complaint[len(str(path)) + 1 :].partition(":")[0]) <= text.count(b"\n") + 1


def test_the_sample_with_every_option_loads(tmp_path):
    path = tmp_path / "rtpipe.toml"
    path.write_bytes(SAMPLE)
    assert load(path).config.listen[0].name == "door"
