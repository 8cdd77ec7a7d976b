"""The formats of audio: PCM16 of 24 kHz, and G.711 of 8 kHz, all of them mono."""

from __future__ import annotations

import array
import bisect
import functools
import math
import operator
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

PCM_RATE = 24_000
G711_RATE = 8_000


@dataclass(frozen=True, eq=False)
class Encoding:
    """`levels`: the 16-bit sample that each byte of G.711 stands for; None for PCM, which is its samples."""

    bytes_per_ms: int
    levels: tuple[int, ...] | None = None

    def loudness(self, audio: bytes) -> float:
        """The root mean square of the samples, 0 to 32768."""
        samples = _samples(audio) if self.levels is None else [self.levels[byte] for byte in audio]
        return math.sqrt(sum(map(operator.mul, samples, samples)) / len(samples))

    def encode(self, samples: Sequence[int]) -> bytes:
        """Bytes of this encoding from samples of 24 kHz."""
        if self.levels is None:
            return _little_endian(array.array("h", samples)).tobytes()
        # The mean of three samples is one of 8 kHz, and a low-pass filter of sorts.
        thirds = (sum(samples[at : at + 3]) // 3 for at in range(0, len(samples), PCM_RATE // G711_RATE))
        return bytes(self._nearest(sample) for sample in thirds)

    def _nearest(self, sample: int) -> int:
        ordered = _ordered(self)
        at = bisect.bisect_left(ordered, (sample, 0))
        return min(ordered[max(0, at - 1) : at + 1], key=lambda pair: abs(pair[0] - sample))[1]


@functools.cache
def _ordered(encoding: Encoding) -> list[tuple[int, int]]:
    return sorted((level, byte) for byte, level in enumerate(encoding.levels or ()))


def _samples(pcm: bytes) -> array.array[int]:
    return _little_endian(array.array("h", pcm))


def _little_endian(samples: array.array[int]) -> array.array[int]:
    if sys.byteorder == "big":
        samples.byteswap()
    return samples


def _mu_law(byte: int) -> int:
    """ITU-T G.711: sign, three bits of exponent, four of mantissa, all inverted; 14 bits, here in 16."""
    inverted = byte ^ 0xFF
    size = (((inverted & 0x0F) << 3) + 0x84 << (inverted >> 4 & 7)) - 0x84
    return -size if inverted & 0x80 else size


def _a_law(byte: int) -> int:
    """ITU-T G.711: the same, every second bit inverted, and the sign bit set for what is positive."""
    plain = byte ^ 0x55
    exponent, mantissa = plain >> 4 & 7, (plain & 0x0F) << 4
    size = mantissa + 8 if exponent == 0 else mantissa + 0x108 << exponent - 1
    return size if plain & 0x80 else -size


PCM = Encoding(bytes_per_ms=2 * PCM_RATE // 1000)
ENCODINGS = {
    "audio/pcm": PCM,
    "audio/pcmu": Encoding(G711_RATE // 1000, tuple(map(_mu_law, range(256)))),
    "audio/pcma": Encoding(G711_RATE // 1000, tuple(map(_a_law, range(256)))),
}


def encoding_of(format_: Mapping[str, Any]) -> Encoding:
    """The encoding of a session's `audio.input.format` or `audio.output.format`."""
    return ENCODINGS[format_["type"]]
