"""Turn gating: while on, the caller's turns are answered because the host asks, not by themselves."""

from collections.abc import Callable

from rtpipe.api.event import Event, Json
from rtpipe.protocol import events
from rtpipe.protocol import session_config as sc
from rtpipe.session.configuration import Configuration


class TurnGate:
    """Keeps the detector but takes away its right to answer, as long as any stage wants that."""

    def __init__(self, configuration: Configuration, changed: Callable[[], None]) -> None:
        self._configuration = configuration
        self._changed = changed
        self._users: set[str] = set()
        self._wanted = self._composed = True
        self._spoken_item: str | None = None
        self._asked = self._void = ""

    def gate(self, stage: str, on: bool) -> None:
        """One stage wants turns gated, or no longer."""
        before = bool(self._users)
        if on:
            self._users.add(stage)
        else:
            self._users.discard(stage)
        if bool(self._users) != before:
            self._changed()

    @property
    def is_on(self) -> bool:
        """Whether any stage wants turns gated."""
        return bool(self._users)

    def contribute(self, config: Json) -> Json:
        """The composed configuration with the gate's own wish, which comes after every stage's."""
        whole = self._configuration.with_defaults(config)
        self._settle()
        self._composed = sc.creates_responses(whole)
        if not self._users or not self._composed:
            return config
        return sc.set_(config, sc.DETECTOR_PATH, sc.detector(sc.with_create_response(whole, on=False)))

    def heard(self, item_id: str | None) -> None:
        """Voice activity detection has ended a turn that will be committed as this item."""
        self._spoken_item = item_id

    def committed(self, item_id: str | None) -> bool:
        """A turn was committed. Returns whether voice activity detection did it."""
        if item_id is None or item_id != self._spoken_item:
            return False
        self._spoken_item = None
        return True

    def asked(self, event_id: str) -> None:
        """The host has asked for the answer to the turn that was committed last."""
        self._asked = event_id

    def comes_again(self) -> None:
        """That turn will be committed again, and asked about again: the other request is void."""
        self._void = self._asked

    def is_void(self, create: Event) -> bool:
        """Whether this asks for the answer to a turn that comes again."""
        return bool(self._void) and events.event_id_of(create.data) == self._void

    @property
    def must_ask(self) -> bool:
        """Whether a turn committed by voice needs a ``response.create`` of the host's to be answered."""
        self._settle()
        return self._wanted and not sc.creates_responses(
            self._configuration.with_defaults(self._configuration.effective)
        )

    def _settle(self) -> None:
        """What is wanted counts once the upstream has it: until then turns are answered as before."""
        if not self._configuration.in_flight:
            self._wanted = self._composed
