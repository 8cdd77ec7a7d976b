"""The names that are not ours are those of the conventions, as OpenTelemetry publishes them for Python."""

import importlib
import pkgutil
import re
from pathlib import Path

import opentelemetry.semconv
import opentelemetry.util.genai

from rtpipe_tracing import names


def published():
    """Every string in the packages of the conventions, and of the instrumentation of their newest form."""
    text = ""
    for package in (opentelemetry.semconv, opentelemetry.util.genai):
        for path in package.__path__:
            for file in Path(path).rglob("*.py"):
                text += file.read_text("utf-8")
    return set(re.findall(r'"([a-z0-9_.]+)"', text))


def ours():
    for name, value in vars(names).items():
        if name.isupper():
            yield from value.values() if isinstance(value, dict) else [value]


def test_each_name_is_published_or_ours():
    known = published()
    assert "gen_ai.usage.audio.input_tokens" in known
    assert [name for name in ours() if not name.startswith("rtpipe.") and name not in known] == []


def test_the_table_has_all_names():
    package = importlib.import_module("rtpipe_tracing")
    for module in pkgutil.iter_modules(package.__path__):
        if module.name != "names":
            source = Path(package.__path__[0], f"{module.name}.py").read_text("utf-8")
            assert re.findall(r'"(?:gen_ai|rtpipe|error|server)\.[a-z_.]+"', source) == []
