"""The caller's audio that no turn has been made of, which another upstream has to hear again."""

from collections import deque

from rtpipe.protocol import events
from rtpipe.protocol.catalogue import Client


class CallerAudio:
    """A ring of what was appended, with the commits and clears among it. Positions are milliseconds of audio
    since the upstream was attached, as it counts them too."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._ring: deque[tuple[str, bytes]] = deque()
        self._bytes = 0
        self._start_ms = 0.0
        self._last_append = (0, 0)
        self.bytes_per_second = 48_000
        self.speaking = False
        """Whether the upstream hears the caller speak."""
        self.lost_s = 0.0
        """Seconds of audio that are not in what was taken last: there was no room to keep them."""
        self._no_room_s = 0.0

    def append(self, payloads: list[bytes]) -> None:
        """These go out, each an append."""
        for payload in payloads:
            self._ring.append((Client.AUDIO_APPEND, payload))
            self._bytes += len(payload)
        while self._bytes > self._limit_bytes and len(self._ring) > 1:
            self._no_room_s += self._length_s(self._ring[0][1])
            self._drop_first()

    def mark(self, kind: str, payload: bytes) -> None:
        """A commit or a clear goes out."""
        self._ring.append((kind, payload))

    def settled(self, kind: str) -> None:
        """The upstream has committed or cleared what came before the mark of that kind."""
        if any(each == kind for each, _ in self._ring):
            while self._drop_first() != kind:
                pass
        self.speaking, self._no_room_s = False, 0.0

    def heard_until(self, end_ms: float) -> None:
        """Voice activity detection has made a turn of what came before."""
        self.speaking, self._no_room_s = False, 0.0
        while self._ring and self._start_ms < end_ms and self._ring[0][0] == Client.AUDIO_APPEND:
            self._drop_first()

    def take(self, *, detects: bool) -> list[tuple[str, bytes]]:
        """What to send again, by type and text; positions count from its beginning.

        It is all that there is: what the last upstream did not say before it was lost, it may not have heard.

        *detects*: the upstream finds the turns, so what had no room was silence unless it heard speech.
        `lost_s`: what is missing.
        """
        if detects and not self.speaking:
            self._no_room_s = 0.0
        self.lost_s, self._no_room_s = self._no_room_s, 0.0
        self._start_ms, self.speaking = 0.0, False
        return list(self._ring)

    def _length_s(self, payload: bytes) -> float:
        # Appends of one client differ in nothing that has a length but their audio.
        if len(payload) != self._last_append[0]:
            self._last_append = (len(payload), events.audio_append_bytes(payload))
        return self._last_append[1] / self.bytes_per_second

    def _drop_first(self) -> str:
        kind, payload = self._ring.popleft()
        if kind == Client.AUDIO_APPEND:
            self._bytes -= len(payload)
            self._start_ms += self._length_s(payload) * 1000
        return kind
