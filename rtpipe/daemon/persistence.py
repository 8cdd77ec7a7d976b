"""Sessions that outlive the process: written down while they go on, and found again by their clients.

In the store's namespace `host:sessions` a pointer says at the place of a session (a hash of whose it is, and
of the client's key for it) which session that is and under which token it is written; the records with that
token are the session. Whoever takes it up writes it under a token of its own and then exchanges the pointer,
which one of several can do.
"""

import hashlib
import logging
from collections.abc import Callable

from rtpipe.api.event import HOST
from rtpipe.api.facts import Alerted, Fact
from rtpipe.api.principal import Principal
from rtpipe.daemon.config_session import Persist
from rtpipe.daemon.keeper import PARTS, POINTERS, Keeper, Pointer, in_use
from rtpipe.daemon.resume import Place
from rtpipe.daemon.sealing import Sealer
from rtpipe.session.session import Session
from rtpipe.store import Namespace

log = logging.getLogger("rtpipe.daemon")

NAMESPACE = "host:sessions"


class Persistence:
    """What is kept of sessions, in the store."""

    def __init__(
        self,
        records: Namespace,
        options: Callable[[], Persist],
        sealer: Callable[[], Sealer],
        record: Callable[[Fact], None],
    ) -> None:
        self.records = records
        self.options = options
        self.sealer = sealer
        self._record = record
        self.keepers: dict[str, Keeper] = {}
        """By place: of the sessions of this process, from before they are made."""
        self._warned = False

    async def keeper(self, principal: Principal, place: Place) -> Keeper | None:
        """Who writes the session down that stands at *place*; None where nobody is to.

        Raises ``Refused`` while another connection makes that session.
        """
        if not principal.persist:
            return None
        if not self.sealer():
            if not self._warned:
                self._warned = True
                log.warning("%s: its sessions are not persisted: persist.keys is empty", principal.id)
            return None
        name = _name_of(place)
        while (other := self.keepers.get(name)) is not None:
            if other.is_needed:
                raise in_use()
            await other.gone.wait()
        return Keeper(self, name)

    async def confirm(self, place: Place, session: Session) -> None:
        """End *session*, which stands at *place* here, if another process has taken it up meanwhile."""
        keeper = self.keepers.get(_name_of(place))
        if keeper is not None:
            await keeper.confirm(session)

    async def forget(self, name: str) -> int:
        """Erase what is written of the session of this id, or of a principal's; one that lives goes on, and
        is not written any more. Returns of how many there was something. Raises ``StoreError``."""
        count, after = 0, ""
        for keeper in list(self.keepers.values()):
            if name in keeper.names:
                count += await keeper.forget()
        while found := await self.records.scan(POINTERS, after=after):
            for key, value in found.items():
                after = key
                pointer = Pointer.decode(value)
                if name in (pointer.session, pointer.principal):
                    await self.erase(f"{PARTS}{key.removeprefix(POINTERS)}/")
                    await self.records.swap(key, value, None)
                    count += 1
        return count

    async def erase(self, prefix: str) -> None:
        """Delete every record whose name begins so."""
        while found := await self.records.scan(prefix):
            for key in found:
                await self.records.delete(key)

    def unreadable(self, session_id: str, why: str) -> None:
        """A client comes back to a session that cannot be restored: it gets a new one."""
        message = f"what is written of session {session_id} cannot be used: {why}; its client gets a new one"
        self._record(Alerted(stage=HOST, name="session_unreadable", message=message, labels={}))


def _name_of(place: Place) -> str:
    principal, end_user, key = place
    parts = (principal.encode(), end_user.encode(), key)
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()
