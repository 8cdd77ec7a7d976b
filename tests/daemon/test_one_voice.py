"""Creates that cross, through the daemon: none is refused, none is lost."""

import tempfile
from pathlib import Path

import trio

from tests.daemon.kit import MODEL, running
from tests.daemon.lines import speaking

WRITERS, CREATES = 4, 25
TEXT = {"type": "realtime", "output_modalities": ["text"]}


async def test_no_create_is_refused_or_lost(file):
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # a socket's path must be short
        place = Path(folder) / "rtpipe.sock"
        listen = f'[[listen]]\naddress = "unix:{place}"\nopen = true\n'
        lock = file(chain=["response-lock"], listen="open = true", more=listen)
        ends = {}

        async def write(number: int) -> None:
            async with speaking(place, role="session", model=MODEL) as lines:
                await lines.tell("session.update", session=TEXT)
                for place_ in range(CREATES):
                    names = {} if place_ % 3 else {"event_id": f"c{place_}"}
                    await lines.tell("response.create", response={"metadata": {"n": str(place_)}}, **names)
                seen = []
                while sum(each["type"] == "response.done" for each in seen) < CREATES:
                    seen += await lines.until("response.done")
                ends[number] = seen

        async with running(lock, "--sim", "--sim-pace", "0"), trio.open_nursery() as nursery:
            for number in range(WRITERS):
                nursery.start_soon(write, number)
    for seen in ends.values():
        assert not [each for each in seen if each["type"] == "error"]
        done = [each["response"] for each in seen if each["type"] == "response.done"]
        assert [each["metadata"] for each in done] == [{"n": str(n)} for n in range(CREATES)]
        running_ = 0
        for each in seen:
            running_ += {"response.created": 1, "response.done": -1}.get(each["type"], 0)
            assert running_ in (0, 1)
    assert len(ends) == WRITERS
