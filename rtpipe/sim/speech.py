"""The voice: a made-up speaker, without words but with all that detectors and ears take for speech."""

from __future__ import annotations

import base64
import functools
import math

from .sound import PCM, PCM_RATE, Encoding

CHUNK_MS = 100
CHARS_PER_SECOND = 15  # an unhurried speaker

_PEAK = 16_000
_PULSE_SAMPLES = PCM_RATE * 12 // 1000  # what rings longer is inaudible
# Frequency and bandwidth of three formants in Hz (after Peterson and Barney, 1952).
_VOWELS = {
    "a": ((730, 90), (1090, 110), (2440, 160)),
    "e": ((530, 70), (1840, 100), (2480, 150)),
    "i": ((270, 60), (2290, 100), (3010, 150)),
    "o": ((570, 80), (840, 90), (2410, 150)),
    "u": ((300, 60), (870, 90), (2240, 150)),
}
_LOUDNESS_OF_FORMANTS = (1.0, 0.5, 0.25)
# Two phrases, each followed by a pause that is shorter than what detectors take for the end of a turn.
_PHRASES = ("aieoa", "eauiaeo")
_CONSONANT_MS, _VOWEL_MS, _PAUSE_MS = 50, 150, 200
_LOOP_CHUNKS = (sum(map(len, _PHRASES)) * (_CONSONANT_MS + _VOWEL_MS) + len(_PHRASES) * _PAUSE_MS) // CHUNK_MS
_HIGHEST_HZ, _LOWEST_HZ = 150, 95  # the melody falls through a phrase


def chunks_of(text: str, speed: float) -> int:
    """How many 100 ms chunks it takes to say something."""
    return max(3, math.ceil(len(text) / CHARS_PER_SECOND / speed * 1000 / CHUNK_MS))


def chunk(index: int, encoding: Encoding = PCM) -> bytes:
    return _loop(encoding)[index % _LOOP_CHUNKS]


def chunk_text(index: int, encoding: Encoding = PCM) -> str:
    """A chunk as a delta carries it."""
    return _chunk_base64(index % _LOOP_CHUNKS, encoding)


@functools.cache
def _chunk_base64(index_in_loop: int, encoding: Encoding) -> str:
    return base64.b64encode(_loop(encoding)[index_in_loop]).decode()


@functools.cache
def _loop(encoding: Encoding) -> tuple[bytes, ...]:
    """What is said over and over, made once for a process: so speaking costs no more than sending."""
    audio = encoding.encode(_voice())
    size = CHUNK_MS * encoding.bytes_per_ms
    return tuple(audio[at : at + size] for at in range(0, len(audio), size))


@functools.cache
def _voice() -> tuple[int, ...]:
    """A hiss and a vowel for each syllable; in a vowel each pulse of the throat makes the formants ring."""
    samples = [0.0] * (_LOOP_CHUNKS * CHUNK_MS * PCM_RATE // 1000 + _PULSE_SAMPLES)
    at = 0
    noise = 1
    for phrase in _PHRASES:
        for count, vowel in enumerate(phrase):
            for n in range(at, at + _CONSONANT_MS * PCM_RATE // 1000):
                noise = (noise * 1_103_515_245 + 12_345) % 2**31
                samples[n] += 0.3 * (noise / 2**30 - 1)
            at += _CONSONANT_MS * PCM_RATE // 1000
            hz = _HIGHEST_HZ + (_LOWEST_HZ - _HIGHEST_HZ) * count / len(phrase)
            _sing(samples, at, _pulse(vowel), hz)
            at += _VOWEL_MS * PCM_RATE // 1000
        at += _PAUSE_MS * PCM_RATE // 1000
    del samples[-_PULSE_SAMPLES:]
    loudest = max(map(abs, samples))
    return tuple(int(_PEAK * sample / loudest) for sample in samples)


def _sing(samples: list[float], start: int, pulse: list[float], hz: float) -> None:
    length = _VOWEL_MS * PCM_RATE // 1000
    n = 0.0
    while n < length:
        strength = math.sin(math.pi * (n + 1) / length) ** 0.5  # swells and fades
        wobble = 1 + 0.02 * math.sin(2 * math.pi * 5 * n / PCM_RATE)  # no throat is a clock
        for offset, value in enumerate(pulse, start + int(n)):
            samples[offset] += strength * value
        n += PCM_RATE / (hz * wobble)


@functools.cache
def _pulse(vowel: str) -> list[float]:
    return [
        sum(
            loudness
            * math.exp(-math.pi * bandwidth * n / PCM_RATE)
            * math.sin(2 * math.pi * frequency * n / PCM_RATE)
            for loudness, (frequency, bandwidth) in zip(_LOUDNESS_OF_FORMANTS, _VOWELS[vowel], strict=True)
        )
        for n in range(_PULSE_SAMPLES)
    ]
