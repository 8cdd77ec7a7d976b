"""One end of a WebSocket under load: frames made beforehand go out, what comes in is counted."""

import base64
import hashlib
import os
import socket
from contextlib import suppress

from benchmarks.frames import CLOSE, PING, PONG, Broken, Counter, frame, greeting

READ_BYTES = 512 * 1024
WRITE_BYTES = 256 * 1024
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_buffer = bytearray(READ_BYTES)


class Link:
    """A client's end (`masks`) or the upstream's."""

    def __init__(self, sock: socket.socket, *, masks: bool) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = sock
        self.masks = masks
        self.counter = Counter(masked=not masks)
        self.shaken = False
        self.ended = False
        self.sent_bytes = 0
        self._head = b""
        self._block: memoryview | None = None
        self._frame_bytes = 1
        self._at = 0
        self._stop_at: int | None = None
        self._controls = b""

    # --- out ------------------------------------------------------------------------------------------------

    def start(self, block: memoryview, frame_bytes: int) -> None:
        """From now on send *block*, frames of one length, over and over."""
        self._block, self._frame_bytes, self._at, self._stop_at = block, frame_bytes, 0, None
        self.sent_bytes = 0

    def stop(self) -> None:
        """Send no more than the frame begun."""
        assert self._block is not None
        self._stop_at = -(-self._at // self._frame_bytes) * self._frame_bytes

    @property
    def wants_to_send(self) -> bool:
        return self._block is not None

    @property
    def _in_frame(self) -> int:
        """What of the frame begun is still to go."""
        return -self._at % self._frame_bytes if self._block is not None else 0

    def push(self) -> None:
        """Send what the socket takes, up to a limit."""
        try:
            self._push()
        except BlockingIOError:
            pass
        except OSError:
            self.ended = True

    def _push(self) -> None:
        if self._controls and not self._in_frame:
            self._controls = self._controls[self.socket.send(self._controls) :]
        if self._block is None:
            return
        end = self._at + WRITE_BYTES
        if self._controls:
            end = self._at + self._in_frame
        if self._stop_at is not None:
            end = min(end, self._stop_at)
        part = self._block[self._at : end]
        if len(part):
            sent = self.socket.send(part)
            self._at += sent
            self.sent_bytes += sent
        if self._at == self._stop_at:
            self._block = None
        elif self._at == len(self._block):
            self._at = 0

    def send_one(self, packet: bytes) -> bool:
        """Send one frame in one piece. False: the connection is backed up."""
        try:
            sent = self.socket.send(packet)
        except BlockingIOError:
            return False
        except OSError:
            self.ended = True
            return False
        self.sent_bytes += sent
        return sent == len(packet)

    # --- in -------------------------------------------------------------------------------------------------

    def pull(self) -> None:
        """Read once and count."""
        try:
            size = self.socket.recv_into(_buffer)
            if not size:
                self.ended = True
            elif self.shaken:
                self._handle(self.counter.feed(_buffer, size))
            else:
                self._shake(bytes(_buffer[:size]))
        except BlockingIOError:
            pass
        except OSError:
            self.ended = True

    def _handle(self, controls: list[tuple[int, bytes]]) -> None:
        for opcode, payload in controls:
            if opcode in (PING, CLOSE):
                answer = PONG if opcode == PING else CLOSE
                self._controls += frame(payload, masked=self.masks, opcode=answer)
        if self._controls:
            self.push()
        self.ended = self.ended or any(opcode == CLOSE for opcode, _ in controls)

    def say_goodbye(self) -> None:
        """Begin the closing handshake."""
        with suppress(OSError):
            self.socket.send(frame((1000).to_bytes(2, "big"), masked=True, opcode=CLOSE))

    # --- the handshake --------------------------------------------------------------------------------------

    def ask(self, host: str, target: str, headers: dict[str, str]) -> None:
        key = base64.b64encode(os.urandom(16)).decode()
        lines = [
            f"GET {target} HTTP/1.1",
            f"Host: {host}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Key: {key}",
            "Sec-WebSocket-Version: 13",
            *(f"{name}: {value}" for name, value in headers.items()),
        ]
        self.socket.sendall("\r\n".join([*lines, "", ""]).encode())

    def _shake(self, data: bytes) -> None:
        self._head += data
        head, end, rest = self._head.partition(b"\r\n\r\n")
        if not end:
            return
        lines = head.split(b"\r\n")
        self.shaken = True
        if self.masks:
            if lines[0].split()[1:2] != [b"101"]:
                raise Broken(f"the handshake was answered with {lines[0].decode('latin-1')}")
            self._handle(self.counter.feed(rest, len(rest)))
            return
        fields = {
            name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines[1:])
        }
        key = fields.get(b"sec-websocket-key")
        if key is None:
            # Some relays ask what models there are.
            self.socket.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            self.shaken, self.ended = False, True
            return
        accept = base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())
        answer = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        self.socket.sendall(answer + b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n" + greeting())
        self._handle(self.counter.feed(rest, len(rest)))
