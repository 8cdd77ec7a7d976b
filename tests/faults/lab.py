"""A daemon between two networks of its own, one to its clients and one to its upstream; both can be spoilt.

No packet leaves the machine. Sockets that this process uses there are opened by another one, inside.
"""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from tests.daemon.kit import bearer
from tests.daemon.wire import WebSocket, read_head, upgrade
from tests.faults.machine import NotHereError, inside, namespaces, need, run

GATEWAY, CLIENTS = "10.7.0.1", "10.7.0.2"
"""The network of the clients: the daemon's address, theirs."""
DIALLER, MODEL = "10.8.0.1", "10.8.0.2"
"""The network of the upstream: the daemon's address, the model's."""
PORT = 8787

_CONNECT = """
import socket, sys
host, port, number = sys.argv[1:]
with socket.create_connection((host, int(port))) as made, socket.socket(fileno=int(number)) as there:
    socket.send_fds(there, [b"x"], [made.fileno()])
"""


@dataclass
class Lab:
    """*gateway* and *outside* are processes in the daemon's namespace and in that of everybody else.
    *dropped*: how many packets were, so far."""

    gateway: int
    outside: int
    dropped: int = 0

    @property
    def launcher(self) -> list[str]:
        """What the daemon is started with."""
        return inside(self.gateway, "net")

    async def connect(self) -> trio.SocketStream:
        """A client's connection to the daemon."""
        here, there = socket.socketpair()
        with here, there:
            python = [sys.executable, "-c", _CONNECT, GATEWAY, str(PORT), str(there.fileno())]
            await trio.run_process([*inside(self.outside, "net"), *python], pass_fds=[there.fileno()])
            _, (found,), _, _ = socket.recv_fds(here, 1, 1)
        return trio.SocketStream(trio.socket.from_stdlib_socket(socket.socket(fileno=found)))

    async def client(self, *headers: tuple[str, str]) -> WebSocket:
        """A client in session."""
        stream = await self.connect()
        await stream.send_all(upgrade("/v1/realtime", [*bearer(), *headers]))
        head = await read_head(stream)
        assert head.status == 101, head
        return WebSocket(stream, head, client=True)

    @asynccontextmanager
    async def dropping(self, *what: str) -> AsyncIterator[None]:
        """Drop the packets of which these rules of nft say so where they come in; then no more."""
        rules = "".join(f"{rule} counter drop; " for rule in what)
        table = f"table inet lab {{ chain incoming {{ type filter hook input priority 0; {rules}}}; }}"
        for pid in (self.gateway, self.outside):
            await run(*inside(pid, "net"), "nft", table)
        try:
            yield
            for pid in (self.gateway, self.outside):
                said = await run(*inside(pid, "net"), "nft", "list", "table", "inet", "lab")
                self.dropped += sum(map(int, re.findall(r"counter packets (\d+)", said)))
        finally:
            with trio.CancelScope(shield=True):
                for pid in (self.gateway, self.outside):
                    await run(*inside(pid, "net"), "nft", "delete table inet lab")

    async def reset(self, *which: str) -> None:
        """Have the kernel end the daemon's connections that a filter of ss finds, an RST to their peers."""
        await run(*inside(self.gateway, "net"), "ss", "--kill", "--tcp", "state", "established", *which)

    async def slow(self, rate: str) -> None:
        """Let no more than *rate* through, either way."""
        for pid in (self.gateway, self.outside):
            for link in ("clients", "model"):
                what = ("root", "tbf", "rate", rate, "burst", "32k", "latency", "100ms")
                await run(*inside(pid, "net"), "tc", "qdisc", "replace", "dev", link, *what)


@asynccontextmanager
async def lab() -> AsyncIterator[Lab]:
    """Raises ``NotHereError``."""
    need("ip", "nft", "ss", "tc")
    async with namespaces("net", "ip link set lo up") as gateway:
        within = inside(gateway, "")
        async with namespaces("net", "ip link set lo up", within) as outside:
            for link, here, there in (("clients", GATEWAY, CLIENTS), ("model", DIALLER, MODEL)):
                peer = ("peer", "name", link, "netns", str(outside))
                await run(*inside(gateway, "net"), "ip", "link", "add", link, "type", "veth", *peer)
                for pid, address in ((gateway, here), (outside, there)):
                    ip = (*inside(pid, "net"), "ip")
                    await run(*ip, "address", "add", f"{address}/24", "dev", link)
                    await run(*ip, "link", "set", link, "up")
            try:
                await run(*inside(gateway, "net"), "nft", "list", "tables")
            except subprocess.CalledProcessError as exc:
                raise NotHereError(f"nft: {exc.stderr.decode().strip()}") from None
            yield Lab(gateway, outside)
