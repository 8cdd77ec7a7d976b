"""Write what is generated in this repository: ``python -m tests.refresh``. Tests say when it is needed.

``generated()`` maps each file to the text it should have; ``demo`` runs the demo for the README. A generated
part of a page stands between two comments, which ``between`` looks for.
"""

import inspect
import re
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path

from rtpipe.api import facts
from rtpipe.api.hooks import LIMITS, Hooks
from rtpipe.chain.discovery import installed, load_plugin
from rtpipe.cli.verbs import VERBS, own
from rtpipe.daemon import metrics
from rtpipe.daemon.sample import options_table, sample
from rtpipe.daemon.schema import admin_openapi_text, lines_schema_text, schema_text
from rtpipe.protocol import ordering
from tests.architecture.surface import surface
from tests.man_page import man_page

ROOT = Path(__file__).parents[1]

Pages = dict[str, Callable[[], str]]


def generated() -> Pages:
    """The files that are generated, wholly or in part, and what makes their text."""
    return {
        "config/rtpipe.toml": lambda: sample(own_plugins()),
        "config/rtpipe.schema.json": lambda: schema_text(own_plugins()),
        "config/jsonlines.schema.json": lines_schema_text,
        "config/admin.openapi.json": admin_openapi_text,
        "config/rtpipe.1": lambda: man_page(
            [*map(own, VERBS), *(each for plugin in own_plugins().values() for each in plugin.commands())]
        ),
        "config/README.md": lambda: with_parts(
            "config/README.md", options=options_table(), metrics=metrics.reference()
        ),
        "plugins/README.md": lambda: with_parts(
            "plugins/README.md", hooks=hooks(), facts=fact_table(), ordering=ordering.as_markdown()
        ),
        "tests/architecture/public_api.txt": surface,
    }


def own_plugins():
    """The plugins of this repository, whatever else is installed."""
    ours = {folder.name for folder in (ROOT / "plugins").iterdir()}
    return {each.name: load_plugin(each.name) for each in installed() if each.distribution in ours}


def with_parts(page: str, **parts: str) -> str:
    """The text of *page* with each part between its markers replaced."""
    text = (ROOT / page).read_text("utf-8")
    for name, part in parts.items():
        head, tail = between(text, name)
        text = f"{head}{part}\n{tail}"
    return text


def between(text: str, name: str) -> tuple[str, str]:
    """What stands before and after the generated part *name*, the markers included."""
    begin, end = f"<!-- generated: {name} -->\n\n", f"<!-- end of {name} -->\n"
    head, begin, rest = text.partition(begin)
    _, end, tail = rest.partition(end)
    if not (begin and end):
        raise LookupError(f"there are no markers of a generated part {name!r}")
    return head + begin, end + tail


def hooks() -> str:
    """Every hook: how it is called, its limit, what it is for."""
    text = ""
    for name, function in vars(Hooks).items():
        if not isinstance(function, types.FunctionType):
            continue
        signature = inspect.signature(function)
        names = ", ".join(each for each in signature.parameters if each != "self")
        answer = str(signature.return_annotation).strip("'")
        answer = "" if signature.return_annotation is None else f" → `{answer}`"
        limit = LIMITS[name]
        limit_text = "its own limit" if limit is None else f"{limit:g} s"
        text += f"**`{name}({names})`**{answer} · {limit_text}\n\n{_markdown(function.__doc__)}\n\n"
    return text.rstrip("\n") + "\n"


def fact_table() -> str:
    """Every fact with its fields."""
    text = "| fact | fields | what it says |\n|---|---|---|\n"
    for name, struct in vars(facts).items():
        if isinstance(struct, type) and issubclass(struct, facts.Fact) and struct is not facts.Fact:
            fields = ", ".join(f"`{field}`" for field in struct.__struct_fields__ if field != "session")
            about = " ".join(_markdown(struct.__doc__).split())
            text += f"| `{name}` | {fields} | {about} |\n"
    return text


def _markdown(docstring: str | None) -> str:
    return inspect.cleandoc(docstring or "").replace("``", "`")


def demo() -> str:
    """What ``make demo`` prints. Raises ``CalledProcessError`` if it fails."""
    command = [sys.executable, "-m", "rtpipe.cli.main", "demo", "--config", "config/demo.toml"]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=60)  # noqa: S603
    return done.stdout


_VARYING = {
    r"(?<=127\.0\.0\.1:)\d+": "PORT",
    r"\d+\.\d+(?= s\b)": "SECONDS",
    # How long the model listens and speaks decides how often it says so.
    r"\d+ (?=server events)": "SOME ",
    r"(?<=server events: )\d+": "SOME",
}


def normalised(text: str) -> list[list[str]]:
    """The demo's output without what differs from one run to the next.

    Client and gateway tell what happens each in its own time, so the lines of a chapter have no order.
    """
    for pattern, word in _VARYING.items():
        text = re.sub(pattern, word, text)
    return [sorted(chapter.splitlines()) for chapter in text.strip().split("\n\n")]


def demo_in_readme() -> str:
    """What the front page says the demo prints."""
    text = (ROOT / "README.md").read_text("utf-8")
    head, tail = between(text, "demo")
    part = text[len(head) : len(text) - len(tail)]
    return part.strip().removeprefix("```").removesuffix("```")


def main() -> None:
    for page, make in generated().items():
        _write(page, make())
    printed = demo()
    if normalised(printed) != normalised(demo_in_readme()):
        _write("README.md", with_parts("README.md", demo=f"```\n{printed}```\n"))


def _write(page: str, text: str) -> None:
    path = ROOT / page
    if not path.exists() or path.read_text("utf-8") != text:
        path.write_text(text, "utf-8")
        sys.stdout.write(f"{page}: rewritten\n")


if __name__ == "__main__":
    main()
