"""Who writes a session down: once, in its own place, for as long as the operator says."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from rtpipe.api.errors import ConfigError, Refused
from rtpipe.api.event import HOST
from rtpipe.api.facts import Fact
from rtpipe.api.principal import Principal
from rtpipe.api.secret import Secret
from rtpipe.api.store import StoreError
from rtpipe.daemon.config_load import from_text
from rtpipe.daemon.config_session import Persist, PersistKey
from rtpipe.daemon.keeper import Head, Keeper
from rtpipe.daemon.persistence import NAMESPACE, Persistence
from rtpipe.daemon.sealing import Sealer, Unreadable
from rtpipe.daemon.stages import specs_of
from rtpipe.session import snapshot
from rtpipe.session.closing import Ending
from rtpipe.store import Namespace, Store
from rtpipe.testing import ChainHarness
from tests.daemon.kit import UPSTREAM_KEY, config

VARIABLE, SECRET = "TEST_SESSION_KEY", "k" * 40
WHO = Principal(id="kiosk", persist=True)
PLACE = ("kiosk", "", b"0" * 32)
RESTART = Ending(1012, "service restart", HOST)
KEY = f'[persist]\nkeys = [{{ id = "a", secret = {{ env = "{VARIABLE}" }} }}]\n'
IMAGE = {"type": "input_image", "image_url": f"data:image/png;base64,{'A' * 1000}"}


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, SECRET)


def sealer(*ids: str) -> Sealer:
    return Sealer([PersistKey(id=each, secret=Secret(env=VARIABLE)) for each in ids])


class Disk:
    """The records of several processes in one file, and a clock."""

    def __init__(self, store: Store, records: Namespace) -> None:
        self.store = store
        self.records = records
        self.facts: list[Fact] = []

    def process(self, *ids: str) -> Persistence:
        ids = ids or ("one",)
        options = Persist(retention_h=1)
        return Persistence(self.records, lambda: options, lambda: sealer(*ids), self.facts.append)


class Clock:
    def __init__(self) -> None:
        self.time = 1_000_000.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def disk(tmp_path: Path, clock: Clock) -> AsyncIterator[Disk]:
    async with await Store.open(tmp_path / "store.sqlite3", now=clock) as store:
        yield Disk(store, store.namespace(NAMESPACE))


async def keeper(process: Persistence) -> Keeper:
    made = await process.keeper(WHO, PLACE)
    assert made is not None
    return made


@asynccontextmanager
async def talk(**options: Any) -> AsyncIterator[ChainHarness]:
    """A session in which a picture was shown."""
    async with ChainHarness({}, principal=WHO, **options) as chain:
        chain.session.parking.allow()
        await show(chain, "u1")
        yield chain


async def show(chain: ChainHarness, item_id: str, *parts: Any) -> None:
    item = {"id": item_id, "type": "message", "role": "user", "content": [IMAGE, *parts]}
    await chain.upstream.send({"type": "conversation.item.added", "event_id": f"e_{item_id}", "item": item})


async def left(process: Persistence) -> str:
    """A session that a process has left behind; returns its id."""
    async with talk() as chain:
        one = await keeper(process)
        one.follow(chain.session)
        await one.finish(RESTART)
        return chain.session.id


async def test_it_is_found_whole(disk: Disk) -> None:
    async with talk() as chain:
        one = await keeper(disk.process())
        one.model = "asked-for"
        one.follow(chain.session)
        await one.finish(RESTART)
        expected = snapshot.take(chain.session, put_away=True)
    head = await (await keeper(disk.process())).find()
    assert head is not None
    assert head.model == "asked-for"
    assert (head.session.items, head.session.session) == (expected.items, expected.session)


async def test_one_of_two_that_come_at_once_takes_it_up(disk: Disk) -> None:
    await left(disk.process())
    first, second = disk.process(), disk.process()
    one, other = await keeper(first), await keeper(second)
    found = [await one.find(), await other.find()]
    assert all(isinstance(each, Head) for each in found)
    await one.take_over(found[0])  # type: ignore[arg-type]
    with pytest.raises(Refused) as caught:
        await other.take_over(found[1])  # type: ignore[arg-type]
    assert (caught.value.status, caught.value.code) == (409, "session_in_use")
    with pytest.raises(Refused):  # in one process it is not even looked for
        await first.keeper(WHO, PLACE)
    one.leave()
    assert await (await keeper(first)).find() is not None  # it failed to serve it: the next may try


async def test_who_lost_it_to_another_process_ends(disk: Disk) -> None:
    await left(disk.process())
    one, other = await keeper(disk.process()), await keeper(disk.process())
    head = await one.find()
    assert head is not None
    await one.take_over(head)
    async with ChainHarness({}, principal=WHO, restores=head.session) as chain:
        again = await other.find()
        assert again is not None
        await other.take_over(again)
        one.follow(chain.session)
        await one.finish(RESTART)
        assert chain.session.ending is not None
        assert chain.session.ending.reason == "taken up elsewhere"
    assert await (await keeper(disk.process())).find() is not None


async def test_who_asks_for_it_here_hears_that_another_process_has_it(disk: Disk) -> None:
    async with talk() as chain:
        here, there = disk.process(), disk.process()
        one = await keeper(here)
        one.follow(chain.session)
        await here.confirm(PLACE, chain.session)  # nothing is written yet
        await one.write(chain.session)
        await here.confirm(PLACE, chain.session)
        assert chain.session.ending is None
        other = await keeper(there)
        head = await other.find()
        assert head is not None
        await other.take_over(head)
        await here.confirm(PLACE, chain.session)
        assert chain.session.ending is not None
        assert chain.session.ending.reason == "taken up elsewhere"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keeper, here)  # is not refused, but waits for the end of the old one
            await trio.testing.wait_all_tasks_blocked()
            await one.finish(chain.session.ending)
    assert await (await keeper(disk.process())).find() is not None


async def test_what_is_gone_is_not_written_again_and_ends_nothing(disk: Disk, clock: Clock) -> None:
    """Forgotten by another process, or expired because the clock has leapt."""
    async with talk() as chain:
        one = await keeper(disk.process())
        one.follow(chain.session)
        await one.write(chain.session)
        assert await disk.process().forget(chain.session.id) == 1
        await one.write(chain.session)
        await one.write(chain.session)
        assert chain.session.ending is None
    assert await disk.records.scan("") == {}


async def test_it_is_kept_for_as_long_as_the_operator_says(disk: Disk, clock: Clock) -> None:
    await left(disk.process())
    clock.time += 3599
    one = await keeper(disk.process())
    assert await one.find() is not None
    one.leave()
    clock.time += 1
    assert await (await keeper(disk.process())).find() is None
    assert await disk.records.scan("") == {}
    assert disk.facts == []


async def test_a_session_that_ends_leaves_nothing(disk: Disk) -> None:
    async with talk() as chain:
        one = await keeper(disk.process())
        one.follow(chain.session)
        chain.session.start(one.run, chain.session)
        await chain.settle()
        while not await disk.records.scan("at/"):
            await trio.lowlevel.checkpoint()
        await one.finish(Ending(1000, "", "client"))
        chain.session.changed()
        await chain.settle()
    assert await disk.records.scan("") == {}


async def test_what_has_images_is_written_once(disk: Disk) -> None:
    async with talk() as chain:
        one = await keeper(disk.process())
        one.follow(chain.session)
        await one.write(chain.session)
        before = await disk.records.scan("of/")
        assert len(before) == 2
        await show(chain, "u2")
        await one.write(chain.session)
        after = await disk.records.scan("of/")
        assert len(after) == 3
        assert sum(before.get(key) == value for key, value in after.items()) == 1
        delete = {"type": "conversation.item.deleted", "event_id": "e", "item_id": "u1"}
        await chain.upstream.send(delete)
        await one.write(chain.session)
        assert len(await disk.records.scan("of/")) == 2


async def test_one_that_cannot_be_opened_is_told_and_costs_nothing_else(disk: Disk) -> None:
    session_id = await left(disk.process())
    process = disk.process("another")
    async with talk() as chain:
        one = await keeper(process)
        assert await one.find() is None
        (alert,) = disk.facts
        assert f"{session_id} cannot be used: its key 'one' is not among persist.keys" in str(alert)
        one.follow(chain.session)
        await one.finish(RESTART)  # the new one has its place
        new = chain.session.id
    head = await (await keeper(disk.process("another"))).find()
    assert head is not None
    assert head.session.session == new


@pytest.mark.parametrize("which", ["of/", "at/"])
async def test_a_damaged_record_is_none(disk: Disk, which: str) -> None:
    await left(disk.process())
    for key, record in (await disk.records.scan(which)).items():
        await disk.records.put(key, record[:-1] + bytes([record[-1] ^ 1]))
    process = disk.process()
    assert await (await keeper(process)).find() is None
    assert len(disk.facts) == 1
    assert await process.forget("nobody") == 0


async def test_while_the_disk_fails_the_session_goes_on(
    disk: Disk, autojump_clock: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = disk.process()
    tried = 0

    async def fails(*_: Any) -> None:
        nonlocal tried
        tried += 1
        raise StoreError(Path("store"), "the disk is full", "make room")

    monkeypatch.setattr(disk.records, "put", fails)
    async with ChainHarness({}, principal=WHO) as chain:
        one = await keeper(process)
        chain.session.start(one.run, chain.session)
        await trio.sleep(60)
        assert tried > 5
        assert chain.session.ending is None
    assert [each.message.partition(": ")[2] for each in caplog.records] == [
        "store: the disk is full; make room"
    ]


async def test_without_persist_or_a_key_nothing_is_written(
    disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    assert await disk.process().keeper(Principal(id="kiosk"), PLACE) is None
    without = Persistence(disk.records, Persist, lambda: Sealer(()), disk.facts.append)
    for _ in range(2):
        assert await without.keeper(WHO, PLACE) is None
    assert len(caplog.records) == 1


# --- keys


def test_a_record_is_good_in_its_place_alone() -> None:
    keys = sealer("one")
    record = keys.seal("at/one", b"words")
    assert keys.open("at/one", record) == b"words"
    assert sealer("two", "one").open("at/one", record) == b"words"
    assert keys.seal("at/one", b"words") != record
    for name, text in (
        ("at/two", record),
        ("at/one", record[:-1]),
        ("at/one", record[:-1] + bytes([record[-1] ^ 1])),
        ("at/one", b""),
        ("at/one", b"\x01"),
        ("at/one", b"words"),
    ):
        with pytest.raises(Unreadable):
            keys.open(name, text)
    with pytest.raises(Unreadable, match="'one' is not among"):
        sealer("two").open("at/one", record)


@pytest.mark.parametrize(
    ("persist", "mistake"),
    [
        ("", "plugins.auth: its callers' sessions are to be persisted, and there is no key"),
        (
            f'[persist]\nkeys = [{{ id = "a", secret = {{ env = "{VARIABLE}" }} }}, '
            f'{{ id = "a", secret = {{ env = "{VARIABLE}" }} }}]\n',
            "persist.keys[1].id: another key has this id",
        ),
        (
            '[persist]\nkeys = [{ id = "a", secret = { env = "TEST_SHORT" } }]\n',
            "persist.keys[0].secret: this secret has fewer than 32 characters: make one with",
        ),
        (
            f"{KEY}[session]\nresume_window_s = 0\n",
            "session.resume_window_s: auth has sessions persisted, and with 0 nobody resumes one",
        ),
        (
            f"{KEY}[session]\nconversation_bytes = 9_000_000\n",
            "session.conversation_bytes: auth has sessions persisted, each written whole: write 8388608",
        ),
    ],
)
def test_mistakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, persist: str, mistake: str) -> None:
    monkeypatch.setenv("TEST_SHORT", "short")
    monkeypatch.setenv("TEST_UPSTREAM_KEY", UPSTREAM_KEY)
    loaded = from_text(config(tmp_path, more="persist = true\n" + persist), "test.toml")
    for upstreams in (True, False):
        with pytest.raises(ConfigError) as caught:
            specs_of(loaded, secrets_of_upstreams=upstreams)
        assert mistake in str(caught.value)
        assert "\n" not in str(caught.value)
