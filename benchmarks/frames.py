"""WebSocket frames made beforehand, and a reader that counts what comes without decoding it."""

import base64
import json
import os
import random
from collections.abc import Mapping

AUDIO_BYTES = 4800
"""100 ms of 24 kHz PCM16: 6.4 kB of base64, what one event usually carries."""
MEASURED_BYTES = 4096
"""Longer messages are the measured events; greetings and the like are shorter."""

TEXT, CLOSE, PING, PONG = 1, 8, 9, 10


class Broken(Exception):
    """A relay did something that no relay may do."""


def frame(payload: bytes, *, masked: bool, opcode: int = TEXT) -> bytes:
    """One whole frame."""
    size, mask_bit = len(payload), 0x80 if masked else 0
    if size < 126:
        head = bytes([0x80 | opcode, mask_bit | size])
    else:
        head = bytes([0x80 | opcode, mask_bit | 126]) + size.to_bytes(2, "big")
    if not masked:
        return head + payload
    mask = os.urandom(4)
    return head + mask + unmask(payload, mask)


def unmask(payload: bytes, mask: bytes) -> bytes:
    size = len(payload)
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")


def deltas(count: int) -> list[bytes]:
    """Audio as OpenAI's server sends it: compact, `type` first. All frames have the same length."""
    return [
        frame(_compact(
            {
                "type": "response.output_audio.delta",
                "event_id": f"event_{number:021d}",
                "response_id": "resp_000000000000000000001",
                "item_id": "item_000000000000000000001",
                "output_index": 0,
                "content_index": 0,
                "delta": _audio(number),
            }
        ), masked=False)
        for number in range(count)
    ]  # fmt: skip


def appends(count: int) -> list[bytes]:
    """Audio as OpenAI's Python SDK sends it: `json.dumps`, masked. All frames have the same length."""
    return [
        frame(
            json.dumps({"type": "input_audio_buffer.append", "audio": _audio(number)}).encode(), masked=True
        )
        for number in range(count)
    ]


def greeting() -> bytes:
    """What the upstream says first."""
    session = {"type": "realtime", "object": "realtime.session", "id": "sess_1", "model": "gpt-realtime"}
    created = {"type": "session.created", "event_id": "event_0", "session": session}
    return frame(_compact(created), masked=False)


def _compact(event: Mapping[str, object]) -> bytes:
    return json.dumps(event, separators=(",", ":")).encode()


def _audio(seed: int) -> str:
    return base64.b64encode(random.Random(seed).randbytes(AUDIO_BYTES)).decode()


class Counter:
    """Walks over frames: counts messages and their bytes, hands control frames out."""

    def __init__(self, *, masked: bool) -> None:
        self.messages = 0
        """Of any length."""
        self.measured = 0
        self.measured_bytes = 0
        self._masked = masked
        self._size = 0
        self._skip = 0
        self._rest = b""

    @property
    def between_frames(self) -> bool:
        return not self._skip and not self._rest

    def feed(self, data: bytearray | bytes, end: int) -> list[tuple[int, bytes]]:
        """Take `data[:end]` as it came. Returns the control frames in it, as opcode and payload."""
        controls: list[tuple[int, bytes]] = []
        at = self._skip
        if self._rest:
            data = self._rest + data[:end]
            end = len(data)
            self._rest = b""
        while end - at >= 2:
            first, second = data[at], data[at + 1]
            size, head = second & 0x7F, 2
            if size >= 126:
                head = 4 if size == 126 else 10
                if end - at < head:
                    break
                size = int.from_bytes(data[at + 2 : at + head], "big")
            if (second > 0x7F) != self._masked:
                raise Broken("frames masked the wrong way")
            head += 4 if self._masked else 0
            if first & 8:
                if end - at < head + size:
                    break
                payload = bytes(data[at + head : at + head + size])
                mask = bytes(data[at + head - 4 : at + head])
                controls.append((first & 15, unmask(payload, mask) if self._masked and size else payload))
            else:
                self._size += size
                if first & 0x80:
                    self._message()
            at += head + size
        self._skip = max(at - end, 0)
        self._rest = bytes(data[at:end])
        return controls

    def _message(self) -> None:
        self.messages += 1
        if self._size > MEASURED_BYTES:
            self.measured += 1
            self.measured_bytes += self._size
        self._size = 0
