"""Who writes one session down: under a token of its own, sealed, and never in the way of what is said."""

import logging
import secrets
from typing import TYPE_CHECKING, Any

import msgspec
import trio

from rtpipe.api.errors import Refused
from rtpipe.api.event import HOST, Json
from rtpipe.api.store import StoreError
from rtpipe.daemon.sealing import Unreadable
from rtpipe.protocol import items
from rtpipe.protocol.catalogue import DOWNSTREAM
from rtpipe.session import snapshot
from rtpipe.session.closing import NORMAL, SERVICE_RESTART, Ending
from rtpipe.session.session import Session
from rtpipe.session.snapshot import KeptItem, Snapshot
from rtpipe.store import MAX_VALUE_BYTES

if TYPE_CHECKING:
    from rtpipe.daemon.persistence import Persistence

log = logging.getLogger("rtpipe.daemon")

WRITE_EVERY_S = 0.5
"""How long what is new waits at most for more of it, before it is written."""
LOOK_S = 5.0
"""How often a session whose client is gone is written nevertheless: that shows whether it has come back to
another process, and nobody is to hear what is said here."""
RETRY_S = 5.0
LAST_LIMIT_S = 6.0
"""What the last writing may take: one call of the store gives up after 5 s."""
POINTERS, PARTS = "at/", "of/"
_ROOM = MAX_VALUE_BYTES - 1024


class Pointer(msgspec.Struct, frozen=True):
    """Stands in clear: which session is at a place, whose, and where it is written."""

    session: str
    principal: str
    token: str

    def encode(self) -> bytes:
        return msgspec.json.encode(self)

    @staticmethod
    def decode(record: bytes) -> "Pointer":
        """What a record says; one that is damaged points to no session that there is."""
        try:
            return msgspec.json.decode(record, type=Pointer)
        except msgspec.MsgspecError:
            return Pointer(session="(damaged)", principal="", token="")


class Head(msgspec.Struct, frozen=True):
    """What a session is restored from. *model* is the one its client asked for, None if it named none."""

    model: str | None
    session: Snapshot


class _Apart(msgspec.Struct):
    """An item that has a record of its own, when that was written, and for how long."""

    item: Json
    name: str
    since_s: float
    ttl_s: float


class Keeper:
    """Writes one session down, as long as it lives here."""

    def __init__(self, owner: "Persistence", place: str) -> None:
        self._owner = owner
        self._place = place
        self._records = owner.records
        self._at = f"{POINTERS}{place}"
        self._token = secrets.token_hex(8)
        self._found: bytes | None = None
        """The pointer as it was before us."""
        self._ours: bytes | None = None
        """The pointer that we have put there."""
        self._session: Session | None = None
        self.model: str | None = None
        """The one its client asked for."""
        self._apart: dict[str, _Apart] = {}
        self._written: set[str] = set()
        """The names of the records that there may be of what is apart."""
        self._numbers = 0
        self._changed = trio.Event()
        self._writing = trio.Lock()
        self._is_failing = False
        self._is_over = False
        """Whether nothing is to be written any more."""
        self.gone = trio.Event()
        owner.keepers[place] = self

    @property
    def is_needed(self) -> bool:
        """Whether the session is being made or lives."""
        return self._session is None or self._session.ending is None

    @property
    def names(self) -> tuple[str, ...]:
        """By which the session in service can be forgotten."""
        return () if self._session is None else (self._session.id, self._session.principal.id)

    # --- before the session ---------------------------------------------------------------------------------

    async def find(self) -> Head | None:
        """What is written of the session; None if there is nothing, or nothing that can be used."""
        try:
            self._found = await self._records.get(self._at)
            if self._found is None:
                return None
            found = Pointer.decode(self._found)
            try:
                return await self._read(found.token)
            except (Unreadable, ValueError) as exc:  # ValueError: another version wrote it
                self._owner.unreadable(found.session, str(exc))
        except StoreError as exc:
            log.warning("a session cannot be looked for: %s", exc)
        return None

    async def take_over(self, head: Head) -> None:
        """Have the session that was found be ours, and nobody else's. Raises ``Refused`` when somebody was
        quicker, or the disk fails."""
        assert self._found is not None
        try:
            await self._write(head)
            ours = self._pointer(head.session)
            if not await self._records.swap(self._at, self._found, ours, ttl_s=self._ttl_s):
                await self._owner.erase(self._prefix(self._token))
                raise in_use()
            self._ours = ours
            await self._owner.erase(self._prefix(Pointer.decode(self._found).token))
        except StoreError as exc:
            log.warning("session %s is not restored: %s", head.session.session, exc)
            raise Refused(503, "session_not_restored", "This session cannot be restored just now.") from None

    # --- while it lives -------------------------------------------------------------------------------------

    def follow(self, session: Session) -> None:
        """This is the session."""
        self._session = session
        session.changed = self._look_again

    async def run(self, session: Session) -> None:
        """Write the session down now and whenever it has changed, until cancelled."""
        self.follow(session)
        while True:
            self._changed = trio.Event()
            wait_s = WRITE_EVERY_S
            try:
                await self.write(session)
                self._is_failing = False
            except (StoreError, ValueError) as exc:  # ValueError: it is too large
                self._failed(exc)
                self._changed.set()
                wait_s = RETRY_S
            await trio.sleep(wait_s)
            lasts_s = self._ttl_s / 3  # nothing of a living session may expire
            with trio.move_on_after(lasts_s if session.client.connection else LOOK_S):
                await self._changed.wait()

    async def write(self, session: Session, *, put_away: bool = False) -> None:
        """Write the session down as it is; *put_away*: for the last time. Raises ``StoreError``, and
        ``ValueError`` for one that is too large."""
        async with self._writing:
            if self._is_over:
                return
            self._is_over = put_away
            taken = snapshot.take(session, put_away=put_away)
            await self._write(Head(self.model, taken))
            ours = self._pointer(taken)
            # The first time, who comes last has the place; later it is ours, or was taken from us.
            known = self._ours or await self._records.get(self._at)
            if await self._records.swap(self._at, known, ours, ttl_s=self._ttl_s):
                self._ours = ours
                return
            self._is_over = True
            if await self._records.get(self._at) is None:
                # Another process was asked to forget it, or the clock has leapt: neither ends a call.
                log.warning("session %s: what was written of it is gone; it is not written again", session.id)
            else:
                self._taken_up(session)
            await self._owner.erase(self._prefix(self._token))

    async def confirm(self, session: Session) -> None:
        """End the session if another process has taken it up: it is older here than it is there."""
        try:
            there = await self._records.get(self._at)
        except StoreError as exc:
            self._failed(exc)
            return
        if there is not None and self._ours is not None and there != self._ours:
            self._taken_up(session)

    def _taken_up(self, session: Session) -> None:
        self._is_over = True
        log.warning("session %s: another connection has taken it up", session.id)
        session.end(Ending(NORMAL, "taken up elsewhere", HOST))

    def _look_again(self) -> None:
        self._changed.set()

    async def finish(self, ending: Ending) -> None:
        """The session has ended here: what is written of it stays where this process ends too, and another
        may go on; else it is erased. Bounded, shielded."""
        with trio.CancelScope(shield=True), trio.move_on_after(LAST_LIMIT_S):
            try:
                if self._session is not None and (ending.code, ending.cause) == (SERVICE_RESTART, HOST):
                    await _cut_short(self._session)
                    await self.write(self._session, put_away=True)
                else:
                    await self._erase()
            except (StoreError, ValueError) as exc:
                self._failed(exc)
        self.leave()

    async def forget(self) -> bool:
        """Erase what is written, and write nothing more. Returns whether there was anything. Raises
        ``StoreError``."""
        had = self._ours is not None
        await self._erase()
        return had

    def leave(self) -> None:
        """There is nothing more to do here."""
        if self._owner.keepers.get(self._place) is self:
            del self._owner.keepers[self._place]
        self.gone.set()

    # --- what stands in the store ---------------------------------------------------------------------------

    @property
    def _ttl_s(self) -> float:
        return self._owner.options().retention_h * 3600

    def _prefix(self, token: str) -> str:
        return f"{PARTS}{self._place}/{token}/"

    def _pointer(self, taken: Snapshot) -> bytes:
        return Pointer(taken.session, taken.principal, self._token).encode()

    async def _write(self, head: Head) -> None:
        """First what is apart, then what names it; then what nobody names any more is deleted."""
        kept = [await self._without_images(item) for item in head.session.items]
        session = msgspec.structs.replace(head.session, items=kept)
        name = f"{self._prefix(self._token)}head"
        sealed = self._owner.sealer().seal(name, msgspec.json.encode(Head(head.model, session)))
        await self._records.put(name, sealed, self._ttl_s)
        named = {item.apart for item in kept}
        self._apart = {item_id: each for item_id, each in self._apart.items() if each.name in named}
        for name in self._written - named:
            await self._records.delete(name)
            self._written.remove(name)

    async def _without_images(self, item: KeptItem) -> KeptItem:
        """An item with images stands in a record of its own, which is not written again with every change."""
        if not items.image_bytes(item.item):
            return item
        known, now_s, ttl_s = self._apart.get(item.id), trio.current_time(), self._ttl_s
        is_young = known is not None and known.ttl_s == ttl_s and now_s - known.since_s <= ttl_s / 3
        if known is None or known.item is not item.item or not is_young:
            data = msgspec.json.encode(item.item)
            if len(data) > _ROOM:
                return msgspec.structs.replace(item, item=items.without_images(item.item))
            self._numbers += 1
            name = f"{self._prefix(self._token)}{self._numbers}"
            known = _Apart(item.item, name, now_s, ttl_s)
            self._written.add(known.name)
            await self._records.put(known.name, self._owner.sealer().seal(known.name, data), ttl_s)
            self._apart[item.id] = known
        return msgspec.structs.replace(item, item={}, apart=known.name)

    async def _read(self, token: str) -> Head:
        head: Head = msgspec.json.decode(await self._opened(f"{self._prefix(token)}head"), type=Head)
        kept = [await self._whole(item) for item in head.session.items]
        return Head(head.model, msgspec.structs.replace(head.session, items=kept))

    async def _whole(self, item: KeptItem) -> KeptItem:
        if not item.apart:
            return item
        data: Any = msgspec.json.decode(await self._opened(item.apart))
        return msgspec.structs.replace(item, item=data, apart="")

    async def _opened(self, name: str) -> bytes:
        record = await self._records.get(name)
        if record is None:
            raise Unreadable("part of it is missing")
        return self._owner.sealer().open(name, record)

    async def _erase(self) -> None:
        async with self._writing:
            self._is_over = True
            if self._ours is not None:
                await self._records.swap(self._at, self._ours, None)
            await self._owner.erase(self._prefix(self._token))
            self._ours = None

    def _failed(self, exc: Exception) -> None:
        """Once for each time that it begins: the session goes on."""
        if not self._is_failing:
            self._is_failing = True
            log.error("session %s is not written down: %s", *self.names[:1], exc)


async def _cut_short(session: Session) -> None:
    """What is being said ends here, for the stages and for a client that waits for its end."""
    session.upstream_edge.cut()
    with trio.move_on_after(session.limits.settle_s):
        await session.lane(DOWNSTREAM).settle()


def in_use() -> Refused:
    message = "Another connection takes this session up just now; try again in a moment."
    return Refused(409, "session_in_use", message, {"Retry-After": "1"})
