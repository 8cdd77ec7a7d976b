"""Load generator and upstream in one loop: clients on this side of the relay, the model on the other."""

import random
import select
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from benchmarks.frames import Broken, appends, deltas
from benchmarks.link import Link

BLOCK_FRAMES = 512
OPENING_AT_ONCE = 10
OPEN_LIMIT_S = 90.0
STILL_LIMIT_S = 5.0
"""Events that have not come so long after the last one did are lost."""
DRAIN_LIMIT_S = 60.0
SLOT_S = 0.001
LATE_S = 0.25
"""A paced relay that still has events so long after the last one was sent is saturated."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where clients connect."""

    host: str
    port: int
    resource: str
    headers: dict[str, str]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one measurement saw."""

    sent: int
    received: int
    same_size: bool
    wall_s: float
    relay_cpu_s: float
    own_cpu_s: float
    saturated: bool = False
    behind_s: float = 0.0
    """By how much the generator itself was late, at the worst."""


class Load:
    """At most one set of sessions at a time."""

    def __init__(self) -> None:
        self._poll = select.epoll()
        self._links: dict[int, Link] = {}
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self._listener.setblocking(False)
        self._poll.register(self._listener, select.EPOLLIN)
        self.port: int = self._listener.getsockname()[1]
        self._frames = {"down": deltas(BLOCK_FRAMES), "up": appends(BLOCK_FRAMES)}
        self._blocks = {way: memoryview(b"".join(frames)) for way, frames in self._frames.items()}

    # --- sessions -------------------------------------------------------------------------------------------

    def open(self, target: Target, sessions: int) -> None:
        """Open sessions, a few at a time, each as far as the upstream's first event. Raises `Broken`."""
        deadline = time.monotonic() + OPEN_LIMIT_S
        opened = 0
        while self._greeted() < sessions:
            if opened < sessions and opened - self._greeted() < OPENING_AT_ONCE:
                self._connect(target)
                opened += 1
                self._turn(0)
            else:
                self._turn(0.1)
            if time.monotonic() > deadline:
                raise Broken(f"{self._greeted()} of {sessions} sessions open after {OPEN_LIMIT_S:g} s")
            if any(link.ended for link in self._links.values()):
                raise Broken(f"a connection ended when {self._greeted()} of {sessions} sessions were open")
        upstream = len(self._side(masks=False))
        if upstream != sessions:
            raise Broken(f"{sessions} sessions, but {upstream} connections to the upstream")

    def _connect(self, target: Target) -> None:
        try:
            sock = socket.create_connection((target.host, target.port), timeout=10)
            self._add(sock, masks=True).ask(target.host, target.resource, target.headers)
        except OSError as error:
            raise Broken(f"cannot be connected to: {error}") from None

    def _add(self, sock: socket.socket, *, masks: bool) -> Link:
        sock.setblocking(False)
        link = self._links[sock.fileno()] = Link(sock, masks=masks)
        self._poll.register(sock, select.EPOLLIN)
        return link

    def _greeted(self) -> int:
        return sum(link.counter.messages > 0 for link in self._links.values() if link.masks)

    def _side(self, *, masks: bool) -> list[Link]:
        return [link for link in self._links.values() if link.masks == masks]

    def close(self) -> None:
        """End all sessions, properly where the relay plays along."""
        for link in self._side(masks=True):
            link.say_goodbye()
        deadline = time.monotonic() + 5
        with suppress(Broken):
            while any(not link.ended for link in self._links.values()) and time.monotonic() < deadline:
                self._turn(0.05)
        for link in self._links.values():
            if not link.ended:
                self._poll.unregister(link.socket)
            link.socket.close()
        self._links.clear()

    # --- loads ----------------------------------------------------------------------------------------------

    def burst(self, way: str, seconds: float, relay_cpu: Callable[[], float]) -> Outcome:
        """As fast as the relay takes it, for so long; then until everything has come."""
        senders, receivers = self._senders(way), self._receivers(way)
        frame_bytes = len(self._frames[way][0])
        before = [(link.counter.measured, link.counter.measured_bytes) for link in receivers]
        cpu, own, began = relay_cpu(), time.process_time(), time.monotonic()
        for link in senders:
            link.start(self._blocks[way], frame_bytes)
            self._poll.modify(link.socket, select.EPOLLIN | select.EPOLLOUT)
        while time.monotonic() - began < seconds:
            self._turn(0.05)
            self._check_ends()
        for link in senders:
            link.stop()
        counted = sum(count for count, _ in before)
        self._drain(senders, receivers, lambda: counted + self._sent(senders, frame_bytes))
        wall, own, cpu = time.monotonic() - began, time.process_time() - own, relay_cpu() - cpu
        sent = self._sent(senders, frame_bytes)
        return self._outcome(way, sent, receivers, before, wall, cpu, own)

    def paced(self, way: str, rate: float, seconds: float, relay_cpu: Callable[[], float]) -> Outcome:
        """Each session one event at a time, *rate* a second; sessions out of step with each other."""
        senders, receivers = self._senders(way), self._receivers(way)
        wheel = self._wheel(senders, rate)
        frames = self._frames[way]
        before = [(link.counter.measured, link.counter.measured_bytes) for link in receivers]
        cpu, own, began = relay_cpu(), time.process_time(), time.monotonic()
        sent, behind, saturated = 0, 0.0, False
        for slot in range(int(seconds / SLOT_S)):
            due = began + slot * SLOT_S - time.monotonic()
            if due > 0:
                time.sleep(due)
            behind = max(behind, -due)
            for link in wheel[slot % len(wheel)]:
                if not link.send_one(frames[sent % BLOCK_FRAMES]):
                    saturated = True
                sent += 1
            if saturated:
                break
            while self._turn(0):
                pass
        self._check_ends()
        stopped = time.monotonic()
        if not saturated:
            expected = sent + sum(count for count, _ in before)
            self._drain([], receivers, lambda: expected)
            saturated = time.monotonic() - stopped > LATE_S and self._count(receivers) >= expected
        wall, own, cpu = time.monotonic() - began, time.process_time() - own, relay_cpu() - cpu
        return self._outcome(way, sent, receivers, before, wall, cpu, own, saturated, behind)

    def _wheel(self, senders: list[Link], rate: float) -> list[list[Link]]:
        phases = random.Random(1)
        wheel: list[list[Link]] = [[] for _ in range(round(1 / rate / SLOT_S))]
        for link in senders:
            wheel[phases.randrange(len(wheel))].append(link)
        return wheel

    def _senders(self, way: str) -> list[Link]:
        return self._side(masks=way == "up")

    def _receivers(self, way: str) -> list[Link]:
        return self._side(masks=way == "down")

    @staticmethod
    def _sent(senders: list[Link], frame_bytes: int) -> int:
        return sum(link.sent_bytes for link in senders) // frame_bytes

    @staticmethod
    def _count(receivers: list[Link]) -> int:
        return sum(link.counter.measured for link in receivers)

    def _drain(self, senders: list[Link], receivers: list[Link], expected: Callable[[], int]) -> None:
        began = last = time.monotonic()
        seen = -1
        while True:
            sending = any(link.wants_to_send for link in senders)
            now, count = time.monotonic(), self._count(receivers)
            if not sending and count >= expected() and all(link.counter.between_frames for link in receivers):
                return
            if count != seen:
                seen, last = count, now
            if now - last > STILL_LIMIT_S or now - began > DRAIN_LIMIT_S:
                return
            self._turn(0.05)
            self._check_ends()

    def _outcome(
        self,
        way: str,
        sent: int,
        receivers: list[Link],
        before: list[tuple[int, int]],
        wall: float,
        cpu: float,
        own: float,
        saturated: bool = False,
        behind: float = 0.0,
    ) -> Outcome:
        received = self._count(receivers) - sum(count for count, _ in before)
        size = sum(link.counter.measured_bytes for link in receivers) - sum(size for _, size in before)
        payload = len(self._frames[way][0]) - (8 if way == "up" else 4)
        return Outcome(sent, received, size == received * payload, wall, cpu, own, saturated, behind)

    def _check_ends(self) -> None:
        if any(link.ended for link in self._links.values()):
            raise Broken("a connection ended under load")

    def _turn(self, timeout_s: float) -> int:
        """Serve whatever is ready. Returns how many sockets were."""
        ready = self._poll.poll(timeout_s)
        for number, mask in ready:
            if number == self._listener.fileno():
                with suppress(BlockingIOError):
                    self._add(self._listener.accept()[0], masks=False)
                continue
            link = self._links[number]
            if mask & select.EPOLLOUT:
                link.push()
                if not link.wants_to_send:
                    self._poll.modify(link.socket, select.EPOLLIN)
            if mask & ~select.EPOLLOUT:
                link.pull()
            if link.ended:
                self._poll.unregister(link.socket)
                link.socket.close()
                if not link.shaken:
                    del self._links[number]
        return len(ready)
