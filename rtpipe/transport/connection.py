"""The seam: what everything above the transport sees of a socket."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

WRITE_DEADLINE_S = 10.0
"""How long 256 KiB, or a payload that is shorter, may take to leave before the peer counts as stopped."""

ABNORMAL = 1006
# What RFC 6455 and its registry allow in a close frame; 1004, 1005, 1006 and 1015 are not for the wire.
WIRE_CODES = frozenset({*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)})
_REASON_BYTES = 123


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end: an address without its port; the listener it came through, "" if dialled.

    At a Unix socket the address is ``uid 1000``, and the kernel vouches for `pid`, `uid` and `gid`, those of
    the process that connected at the time it did; elsewhere these are None. `subject` is that of the
    certificate it showed and the listener's authority vouches for, as RFC 4514 writes it.
    """

    address: str
    port: int | None = None
    listener: str = ""
    pid: int | None = None
    uid: int | None = None
    gid: int | None = None
    subject: str | None = None


@dataclass(frozen=True, slots=True)
class Closing:
    """How a connection ended. `clean`: by a close frame, the peer's or ours.

    Else it broke: 1006, or 1011 where the peer answered no pings and was given up.

    1005 (a close frame without a code) and 1006 appear here as data and never on the wire. `ours`: code and
    reason are what we said, to close it or because the peer broke the protocol, and not the peer's words.
    """

    code: int
    reason: str
    clean: bool
    ours: bool = field(default=False, compare=False)


class ConnectionLost(Exception):
    """The connection has ended: nothing more can be received or sent. *taken*: how many payloads of the send
    that found it so had left whole, from the first on."""

    def __init__(self, closing: Closing, taken: int = 0) -> None:
        super().__init__(f"{closing.code} {closing.reason}".rstrip())
        self.closing = closing
        self.taken = taken


class Connection(Protocol):
    """Whole text payloads, both ways. One task receives; any number may send: payloads never interleave."""

    @property
    def peer(self) -> Peer: ...

    async def receive_many(self) -> list[bytes]:
        """The text payloads that have come, in order and as UTF-8 bytes; waits until there is one at least.

        Cancelling it loses nothing. Raises ConnectionLost once everything the peer sent before the end has
        been received, and at once after our own close().
        """
        ...

    async def receive(self) -> bytes:
        """The next payload alone; otherwise as receive_many()."""
        ...

    async def send_many(self, payloads: Sequence[bytes]) -> None:
        """Send text payloads (UTF-8), in order, with as few writes as may be.

        Returns when the transport has taken them all: until then the sender waits, and what the connection
        keeps of them meanwhile is bounded. Raises ConnectionLost, which tells how many of them it took whole;
        when a payload, or 256 KiB of a longer one, does not leave before the write deadline, that aborts the
        connection, and the reason says so.
        A send that is cancelled while the peer is not reading leaves half a frame behind, so it aborts the
        connection too.
        """
        ...

    async def send(self, payload: bytes) -> None:
        """Send one payload; otherwise as send_many()."""
        ...

    def unacknowledged(self) -> int:
        """How many bytes of what was taken the peer's kernel has not acknowledged: they may not have arrived.
        Once the connection has ended, how many they were then; 0 where nobody can tell."""
        ...

    def abort(self, reason: str) -> None:
        """End the connection at once and without a word; who sends or receives meanwhile finds it lost."""
        ...

    async def close(self, code: int, reason: str) -> None:
        """Say goodbye and release the socket, whoever is receiving or sending meanwhile.

        Takes a few seconds at most and finishes under cancellation. Calling it again does nothing, nor does
        calling it after the connection was lost. The reason is cut to 123 bytes. Raises ValueError for a code
        that may not stand in a close frame.
        """
        ...


def wire_reason(code: int, reason: str) -> str:
    """The reason as a close frame can carry it. Raises ValueError for a code that must not go on the wire."""
    if code not in WIRE_CODES:
        raise ValueError(f"close code {code} may not go on the wire")
    return reason.encode(errors="replace")[:_REASON_BYTES].decode(errors="ignore")
