"""Hearing and speaking: the input audio buffer with its detector, and the voice."""

from __future__ import annotations

import array
import base64
import functools
import math
import operator
import sys
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from .conversation import BYTES_PER_MS

FRAME_MS = 20
CHUNK_MS = 100
FRAME_BYTES = FRAME_MS * BYTES_PER_MS
CHUNK_BYTES = CHUNK_MS * BYTES_PER_MS
MIN_COMMIT_MS = 100
CHARS_PER_SECOND = 15  # an unhurried speaker

# turn_detection.threshold (0..1) times this is the least root mean square of 16-bit samples that is speech:
# 0.5 is 500, about -36 dBFS.
RMS_SCALE = 1000
# semantic_vad decides by meaning; a simulated model has none, so eagerness is only a patience.
EAGERNESS_SILENCE_MS = {"low": 1000, "medium": 500, "auto": 500, "high": 250}

_LOOP_CHUNKS = 20


class Detected(NamedTuple):
    """`at_ms`: milliseconds of audio since the session began. For "started" it includes the prefix padding,
    for "stopped" the silence waited for: where the audio of the item begins and ends."""

    what: Literal["started", "stopped"]
    at_ms: int


def rms(pcm: bytes) -> float:
    samples = array.array("h", pcm)
    if sys.byteorder == "big":
        samples.byteswap()
    return math.sqrt(sum(map(operator.mul, samples, samples)) / len(samples))


class InputAudioBuffer:
    """PCM16 mono 24 kHz that waits to be committed. All times are audio time, however fast it arrives."""

    def __init__(self) -> None:
        self._pcm = bytearray()
        self._rest = b""  # less than a frame, not yet judged
        self._written = 0
        self._speaking = False
        self._silence_ms = 0

    def append(self, audio: bytes, detection: dict[str, Any] | None) -> Iterator[Detected]:
        """Write audio, yielding what is detected at the moment it is: the buffer then ends exactly there.
        Without detection everything is kept; with it, silence before speech is kept only as padding."""
        data, self._rest = self._rest + audio, b""
        if detection is None:
            self._write(data)
            return
        threshold = detection.get("threshold", 0.5) * RMS_SCALE
        padding = detection.get("prefix_padding_ms", 300) * BYTES_PER_MS
        patience_ms = detection.get("silence_duration_ms") or EAGERNESS_SILENCE_MS.get(
            detection.get("eagerness", ""), 0
        )
        whole = len(data) - len(data) % FRAME_BYTES
        for start in range(0, whole, FRAME_BYTES):
            frame = data[start : start + FRAME_BYTES]
            self._write(frame)
            if rms(frame) >= max(threshold, 1):  # digital silence is silence at any threshold
                self._silence_ms = 0
                if not self._speaking:
                    self._speaking = True
                    self._keep(padding + FRAME_BYTES)
                    yield Detected("started", (self._written - len(self._pcm)) // BYTES_PER_MS)
            elif self._speaking:
                self._silence_ms += FRAME_MS
                if self._silence_ms >= patience_ms:
                    self._speaking = False
                    yield Detected("stopped", self._written // BYTES_PER_MS)
            else:
                self._keep(padding)
        self._rest = data[whole:]

    def take(self) -> bytearray:
        """What was written since the last time, for the item that is made of it."""
        self._write(self._rest)
        pcm = self._pcm.copy()
        self.clear()
        return pcm

    def clear(self) -> None:
        self._pcm.clear()
        self._rest = b""
        self._speaking = False

    @property
    def held_ms(self) -> int:
        return (len(self._pcm) + len(self._rest)) // BYTES_PER_MS

    def _write(self, data: bytes) -> None:
        self._pcm += data
        self._written += len(data)

    def _keep(self, size: int) -> None:
        del self._pcm[: max(0, len(self._pcm) - size)]


def chunks_of(text: str, speed: float) -> int:
    """How many 100 ms chunks it takes to say something."""
    return max(3, math.ceil(len(text) / CHARS_PER_SECOND / speed * 1000 / CHUNK_MS))


def chunk(index: int) -> bytes:
    return _voice()[index % _LOOP_CHUNKS]


@functools.cache
def chunk_base64(index_in_loop: int) -> str:
    return base64.b64encode(_voice()[index_in_loop]).decode()


def chunk_text(index: int) -> str:
    """A chunk as a delta carries it."""
    return chunk_base64(index % _LOOP_CHUNKS)


@functools.cache
def _voice() -> tuple[bytes, ...]:
    """Two seconds of a voice-like tone that loop without a click: 120 Hz and its harmonics, with the rise and
    fall of about four syllables a second, at a level any voice detector takes for speech."""
    total = _LOOP_CHUNKS * CHUNK_BYTES // 2
    samples = array.array("h")
    for n in range(total):
        turn = 2 * math.pi * n / 24000
        tone = sum(math.sin(turn * 120 * k + 0.3 * math.sin(turn * 5)) / k for k in (1, 2, 3, 5, 8))
        samples.append(int(4000 * (0.6 - 0.4 * math.cos(turn * 4)) * tone))
    if sys.byteorder == "big":
        samples.byteswap()
    pcm = samples.tobytes()
    return tuple(pcm[at : at + CHUNK_BYTES] for at in range(0, len(pcm), CHUNK_BYTES))
