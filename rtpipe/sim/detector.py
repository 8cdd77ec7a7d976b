"""The input audio buffer and the detector of turns in it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from .sound import PCM, Encoding

FRAME_MS = 20
MIN_COMMIT_MS = 100

# turn_detection.threshold (0..1) times this is the least root mean square of 16-bit samples that is speech:
# 0.5 is 500, about -36 dBFS.
RMS_SCALE = 1000
# Silence is silence at any threshold, also that of A-law, whose least level is 8.
SILENCE_RMS = 10
# semantic_vad decides by meaning; a simulated model has none, so eagerness is only a patience.
EAGERNESS_SILENCE_MS = {"low": 1000, "medium": 500, "auto": 500, "high": 250}


class Detected(NamedTuple):
    """`at_ms`: milliseconds of audio since the session began. For "started" it includes the prefix padding,
    for "stopped" the silence waited for: where the audio of the item begins and ends. "idle": nobody spoke
    for idle_timeout_ms."""

    what: Literal["started", "stopped", "idle"]
    at_ms: int


class InputAudioBuffer:
    """Audio that waits to be committed. All times are audio time, however fast it arrives."""

    def __init__(self) -> None:
        self.encoding = PCM
        self._audio = bytearray()
        self._rest = b""  # less than a frame, not yet judged
        self._written = 0
        self._written_before_ms = 0  # in other encodings
        self._speaking = False
        self._silence_ms = 0
        self._reply_began_ms = 0
        # When the last reply will have been played, from where on idle_timeout_ms counts; None while a
        # response goes on, and after the user spoke.
        self.quiet_from_ms: int | None = None

    def append(
        self, audio: bytes, encoding: Encoding, detection: dict[str, Any] | None
    ) -> Iterator[Detected]:
        """Write audio, yielding what is detected at the moment it is: the buffer then ends exactly there.
        Without detection everything is kept; with it, silence before speech is kept only as padding."""
        if encoding is not self.encoding:
            self._change(encoding)
        data, self._rest = self._rest + audio, b""
        if detection is None:
            self._write(data)
            return
        threshold = max(detection.get("threshold", 0.5) * RMS_SCALE, SILENCE_RMS)
        padding = detection.get("prefix_padding_ms", 300) * encoding.bytes_per_ms
        eager_ms = EAGERNESS_SILENCE_MS[detection.get("eagerness", "auto")]
        patience_ms = detection.get("silence_duration_ms", eager_ms)
        frame_bytes = FRAME_MS * encoding.bytes_per_ms
        whole = len(data) - len(data) % frame_bytes
        for start in range(0, whole, frame_bytes):
            frame = data[start : start + frame_bytes]
            self._write(frame)
            if encoding.loudness(frame) >= threshold:
                self._silence_ms = 0
                if not self._speaking:
                    self._speaking = True
                    self._keep(padding + frame_bytes)
                    yield Detected("started", self.written_ms - len(self._audio) // encoding.bytes_per_ms)
            elif self._speaking:
                self._silence_ms += FRAME_MS
                if self._silence_ms >= patience_ms:
                    self._speaking = False
                    self.quiet_from_ms = None
                    yield Detected("stopped", self.written_ms)
            elif self._idle(detection.get("idle_timeout_ms"), padding):
                yield Detected("idle", self.written_ms)
        self._rest = data[whole:]

    def take(self) -> bytearray:
        """What was written since the last time, for the item that is made of it."""
        self._write(self._rest)
        audio = self._audio.copy()
        self.clear()
        return audio

    def clear(self) -> None:
        self._audio.clear()
        self._rest = b""
        self._speaking = False

    def reply_begins(self) -> None:
        self._reply_began_ms = self.written_ms
        self.quiet_from_ms = None

    def reply_ends(self, audio_ms: int) -> None:
        """`audio_ms`: how long it takes to play, from when it began."""
        self.quiet_from_ms = max(self._reply_began_ms + audio_ms, self.written_ms)

    @property
    def held_ms(self) -> float:
        return (len(self._audio) + len(self._rest)) / self.encoding.bytes_per_ms

    @property
    def written_ms(self) -> int:
        return self._written_before_ms + self._written // self.encoding.bytes_per_ms

    def _idle(self, timeout_ms: int | None, padding: int) -> bool:
        """Whether the wait for the user is over; as long as it goes on, its audio is kept."""
        if timeout_ms is None or self.quiet_from_ms is None:
            self._keep(padding)
            return False
        waited_ms = self.written_ms - self.quiet_from_ms
        self._keep(max(padding, waited_ms * self.encoding.bytes_per_ms))
        return waited_ms >= timeout_ms

    def _change(self, encoding: Encoding) -> None:
        """What waits in another encoding cannot be part of the same item: it is dropped."""
        self.clear()
        self._written_before_ms, self._written = self.written_ms, 0
        self.encoding = encoding

    def _write(self, data: bytes) -> None:
        self._audio += data
        self._written += len(data)

    def _keep(self, size: int) -> None:
        del self._audio[: max(0, len(self._audio) - size)]
