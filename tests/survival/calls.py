"""Has clients make calls, cuts each at one boundary, and compares what came of it."""

import json
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import trio

from tests.clients import install
from tests.clients.browser import Site, report
from tests.clients.rows import Row
from tests.clients.runs import program
from tests.clients.scene import material
from tests.survival.conversation import Told, difference
from tests.survival.cutting import KINDS, Cut, Kind, Leg
from tests.survival.outcomes import Outcome
from tests.survival.running import Ground, ground

LEGS: tuple[Leg, ...] = ("client", "upstream")
UNCUT = "uncut"
HERE = Path(__file__).parent
_MODEL = "gpt-realtime-2.1"
_PAGE_LIMIT_S = 300
_HOURS, _HOUR_S = 3, 4
_ECHO = (("user", ""), ("assistant", "You said: "))
COUNTING = {"openai-python", "WebSocket that counts"}
NEVER_NOTICED = {("livekit-plugins-openai", "client", "hole")}
"""It sends no pings, and waits for ever on a connection that is dead."""
PARTING = 4
"""Events at the end of a call, of a few that say nothing new, behind which nothing is cut: a client that has
heard all ends its call, and nobody waits until another model has been told the conversation."""
_AT_ONCE = 60
"""Calls that one process makes, some of them at a time."""

Client = Callable[[Ground, Sequence[str]], Awaitable[str]]
"""Has a client make calls of these names; what it reported."""


async def cut_everywhere(spread: int | None, only: Sequence[str] | None = None) -> list[Outcome]:
    """Cut the calls of every client in every way: at every boundary, or so many of each leg."""
    site = Site()
    clients: dict[str, Client] = {
        "openai-python": partial(python, "openai", "openai-python-resume", {"client": "sdk"}),
        "WebSocket that counts": partial(python, "openai", "openai-python-resume", {"client": "plain"}),
        "Chromium": partial(browser, site),
        "livekit-plugins-openai": partial(python, "livekit", "livekit-resume", {}),
    }
    outcomes = []
    with site.served():
        async with ground(site.origin) as here:
            for name, client in clients.items():
                if only is None or name in only:
                    outcomes += await cut(name, client, here, spread)
    if only is None:
        outcomes.append(await outlast())
    return outcomes


async def outlast() -> Outcome:
    """A call of three hours with a model that ends every session after one, an hour being four seconds."""
    name = "three-hours"
    outcome = Outcome("openai-python", "upstream", "expiry", _HOURS)
    async with ground("http://localhost", "--session-seconds", str(_HOUR_S)) as here:
        more = {"client": "sdk", "lasts_s": str(_HOURS * _HOUR_S)}
        client = partial(python, "openai", "openai-python-resume", more)
        reported = await _made(client, here, [Cut(name)])
        told = here.told().get(name, Told([], []))
    last = list(told.final.items.values()) if told.sessions else []
    turns = len(last) // 2
    expected = [(who, f"{says}turn {n + 1}") for n in range(turns) for who, says in _ECHO]
    if why := reported.failed.get(name):
        outcome.failed[0] = why
    elif told.lost or last != expected or turns < _HOURS:
        outcome.failed[0] = f"{told.lost} {last}"
    elif len(told.sessions) < _HOURS:
        outcome.failed[0] = f"{len(told.sessions)} sessions at the model"
    else:
        outcome.of = outcome.same = len(told.sessions) - 1
    return outcome


async def cut(name: str, client: Client, here: Ground, spread: int | None) -> list[Outcome]:
    """One client, first without a cut."""
    uncut = Cut(f"{name.split()[0]}-{UNCUT}")
    reported = await _made(client, here, [uncut])
    undisturbed = here.told().get(uncut.name)
    if uncut.name not in reported.ok or undisturbed is None:
        return [Outcome(name, leg, "none", 0, failed={0: str(reported.failed)}) for leg in LEGS]
    outcomes, calls = [], []
    for leg in LEGS:
        for kind in KINDS:
            if (name, leg, kind) in NEVER_NOTICED:
                continue
            whole = range(uncut.passed[leg] - PARTING)
            outcomes.append(Outcome(name, leg, kind, len(whole)))
            calls += [
                Cut(f"{name.split()[0]}-{leg}-{kind}-{boundary}", leg, kind, boundary, name in COUNTING)
                for boundary in _spread(whole, spread, kind)
            ]
    reported = Row("", "", "")
    for some in batched(calls, _AT_ONCE):
        done = await _made(client, here, some)
        reported.ok += done.ok
        reported.failed |= done.failed
    told = here.told()
    for call in calls:
        outcome = next(each for each in outcomes if (each.leg, each.kind) == (call.leg, call.kind))
        disturbed = told.get(call.name)
        why = reported.failed.get(call.name)
        if why is None and not call.done:
            continue  # it came to fewer events than the first
        if why is None and disturbed is not None:
            why = difference(call, disturbed, undisturbed)
        if why is not None:
            outcome.failed[call.boundary] = why
        elif disturbed is not None and disturbed.lost:
            outcome.named += 1
            outcome.losses |= set(disturbed.lost)
        else:
            outcome.same += 1
    return outcomes


def batched(calls: Sequence[Cut], size: int) -> Iterator[Sequence[Cut]]:
    for start in range(0, len(calls), size):
        yield calls[start : start + size]


def _spread(whole: range, count: int | None, kind: Kind) -> Sequence[int]:
    """So many of all, for each kind others: together they meet three times as many."""
    if count is None:
        return whole
    step = max(1, len(whole) // count)
    return whole[KINDS.index(kind) * step // len(KINDS) :: step]


async def _made(client: Client, here: Ground, calls: Sequence[Cut]) -> Row:
    here.calls.update({call.name: call for call in calls})
    names = [call.name for call in calls]
    report = await client(here, names)
    row = Row("", "", "")
    row.read(report, names, f"not reached: {report[-300:]}")
    return row


async def python(
    environment: str, snippet: str, more: Mapping[str, str], here: Ground, calls: Sequence[str]
) -> str:
    """A client in Python, in its own environment."""
    await trio.to_thread.run_sync(install.python, environment)
    given = {**json.loads(material()), **more, "calls": calls, "address": here.client.tcp}
    text = json.dumps({"snippet": here.client.snippet(snippet), "material": given})
    return await program([install.python(environment), f"{environment}_cuts.py"], text, install.PYTHON, {})


async def browser(site: Site, here: Ground, calls: Sequence[str]) -> str:
    """A page that opens the same address again."""
    await trio.to_thread.run_sync(install.debian, "chromium")
    page = (HERE / "page.html").read_text("utf-8").replace('"{material}"', material())
    snippet = here.client.snippet("browser-resume").replace(_MODEL, f'{_MODEL}-" + name + "')
    page = page.replace('"{calls}"', json.dumps(calls)).replace('"{snippet}";', snippet)
    site.files["/"] = ("text/html", page)
    site.files["/caller.mjs"] = ("text/javascript", (HERE / "caller.mjs").read_text("utf-8"))
    return await trio.to_thread.run_sync(report, site, f"{site.origin}/", _PAGE_LIMIT_S)
