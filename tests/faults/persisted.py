"""kill -9 while clients talk in sessions that are written down: each finds its own again, and tells what the
kill cost it once more. In the end the model knows every item once, in the order it was told."""

from __future__ import annotations

import random
import socket
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import trio

from tests.daemon.kit import PATH, bearer, config, simulated
from tests.daemon.test_sockets import passed, supervised
from tests.daemon.wire import WAIT_S, Address, Ended, WebSocket, knock
from tests.faults.killed import bytecode

KILLS = 3
CLIENTS = 10
SECRET = {"TEST_SESSION_KEY": "k" * 40}
PERSIST = 'persist = true\n[persist]\nkeys = [{ id = "one", secret = { env = "TEST_SESSION_KEY" } }]\n'
GONE = (OSError, Ended, trio.BrokenResourceError)


@dataclass
class Logs:
    """What each session of the model was told, by its number: the ids of items, in order."""

    told: dict[int, list[str]] = field(default_factory=lambda: defaultdict(list))

    def heard(self, line: str) -> None:
        entry = msgspec.json.decode(line)
        event = entry.get("event", {})
        if entry["from"] == "server" and event.get("type") == "conversation.item.added":
            self.told[entry["session"]].append(event["item"]["id"])


@dataclass
class Talker:
    """A client with a session of its own. *acknowledged*: the items it was told of that they were added;
    *kept*: how many of them the last kill had left; *lost*: how many, over all kills, it had not."""

    name: str
    acknowledged: list[str] = field(default_factory=list)
    kept: int = 0
    lost: int = 0
    resumed: int = 0
    is_over: bool = False

    async def talk(self, address: Address) -> None:
        while not self.is_over:
            try:
                app = await knock(address, f"{PATH}?rtpipe_session=the-session-of-{self.name}", bearer())
            except GONE:  # accepted by a daemon that was killed then
                continue
            assert isinstance(app, WebSocket), (app.line, app.rest)
            try:
                await app.until("session.created")
                await self._go_on(app)
            except GONE:
                self.resumed += 1
            finally:
                await trio.aclose_forcefully(app.stream)

    async def _go_on(self, app: WebSocket) -> None:
        """See what is there, tell the rest again, and talk on."""
        there = [await self._knows(app, item_id) for item_id in self.acknowledged]
        count = sum(there)
        assert there == [True] * count + [False] * (len(there) - count), (
            f"{self.name}: not the newest: {there}"
        )
        assert count >= self.kept, f"{self.name}: {count} are there, and there had been {self.kept}"
        self.lost += len(there) - count
        self.kept = count
        for item_id in self.acknowledged[count:]:
            await self._tell(app, item_id)
        while not self.is_over:
            item_id = f"{self.name}_{len(self.acknowledged)}"
            await self._tell(app, item_id)
            self.acknowledged.append(item_id)
            if random.random() < 0.2:
                await app.tell("response.create", response={"output_modalities": ["text"]})
                await app.until("response.done")
        await app.close(4000)  # which ends nothing

    async def _knows(self, app: WebSocket, item_id: str) -> bool:
        await app.tell("conversation.item.retrieve", item_id=item_id, event_id=f"is {item_id} there")
        while True:
            event = await app.event()
            if event["type"] == "error" and event["error"]["event_id"] == f"is {item_id} there":
                return False
            if event["type"] == "conversation.item.retrieved" and event["item"]["id"] == item_id:
                return True

    async def _tell(self, app: WebSocket, item_id: str) -> None:
        content = [{"type": "input_text", "text": item_id}]
        item = {"id": item_id, "type": "message", "role": "user", "content": content}
        await app.tell("conversation.item.create", item=item)
        while (event := await app.event())["type"] != "conversation.item.added" or event["item"][
            "id"
        ] != item_id:
            assert event["type"] != "error", event


async def killed_in_sessions() -> str:
    """Nobody is refused, everybody finds its own session, and nothing is known twice."""
    logs = Logs()
    talkers = [Talker(f"c{number}") for number in range(CLIENTS)]
    times = []
    with (
        tempfile.TemporaryDirectory() as folder,
        socket.create_server(("127.0.0.1", 0), backlog=4096) as front,
    ):
        async with simulated(log=logs.heard) as model, trio.open_nursery() as clients:
            file = Path(folder) / "rtpipe.toml"
            file.write_text(config(Path(folder) / "state", model, more=PERSIST))
            environment = {**SECRET, **bytecode(Path(folder))}
            passed(file)
            for number in range(KILLS + 1):
                began = time.monotonic()
                async with supervised(file, environment, strict=(), front=front) as gateway:
                    await gateway.said(" with chain ")
                    if not number:
                        for talker in talkers:
                            clients.start_soon(talker.talk, front.getsockname())
                    await _more(talkers, random.randrange(5, 30))
                    times.append(time.monotonic() - began)
                    if number < KILLS:
                        gateway.process.kill()
                        await gateway.process.wait()
                        continue
                    for talker in talkers:
                        talker.is_over = True
                    await _over(clients)
                    gateway.signal()
                    assert await gateway.exited() == 0, gateway.err
                assert "Traceback" not in gateway.err, gateway.err
    for talker in talkers:
        known = [ids for ids in logs.told.values() if talker.acknowledged[0] in ids][-1]
        mine = [item_id for item_id in known if item_id.startswith(f"{talker.name}_")]
        assert mine == talker.acknowledged, (mine, talker.acknowledged)
    items, lost = (sum(each) for each in zip(*((len(t.acknowledged), t.lost) for t in talkers), strict=True))
    return (
        f"{KILLS} kills, {sum(t.resumed for t in talkers)} sessions resumed, {items} acknowledged items, each"
        f" there once; {lost} of the newest had to be told again"
    )


async def _more(talkers: list[Talker], count: int) -> None:
    """Until every client has had so many more items acknowledged."""
    enough = [len(talker.acknowledged) + count for talker in talkers]
    with trio.fail_after(WAIT_S):
        while any(  # noqa: ASYNC110 - they count, they do not tell
            len(talker.acknowledged) < each for talker, each in zip(talkers, enough, strict=True)
        ):
            await trio.sleep(0.005)


async def _over(clients: trio.Nursery) -> None:
    with trio.fail_after(WAIT_S):
        while clients.child_tasks:  # noqa: ASYNC110
            await trio.sleep(0.005)
