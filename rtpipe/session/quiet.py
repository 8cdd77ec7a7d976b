"""When nobody speaks: what the upstream owes, and who waits until it owes nothing."""

from typing import TYPE_CHECKING

import trio

from rtpipe.api.event import Event
from rtpipe.protocol import events
from rtpipe.protocol.catalogue import UPSTREAM, Client
from rtpipe.session.carried import Carried
from rtpipe.session.responses import Responses

if TYPE_CHECKING:
    from rtpipe.session.session import Session


class Quiet:
    """Counts what the client has asked for and what has not begun. Whoever waits here sets a deadline."""

    def __init__(self, session: "Session", responses: Responses, carried: Carried) -> None:
        self._session = session
        self._responses = responses
        self._carried = carried
        self._asked = 0
        self._waiting = trio.lowlevel.ParkingLot()

    @property
    def awaits_client(self) -> bool:
        """Whether a response that the client has asked for has not begun."""
        return bool(self._asked)

    @property
    def owes(self) -> bool:
        """Whether a response runs or was asked for, of which the upstream has yet to say what it came to."""
        return bool(self._responses or self._asked)

    def asked(self) -> None:
        """The client's ``response.create`` goes out."""
        self._asked += 1

    def answered(self) -> None:
        """One of these has begun, or was refused."""
        self._asked -= 1
        self.look_again()

    def upstream_replaced(self) -> None:
        """What was asked for is asked for again."""
        self._asked = 0
        self.look_again()

    def look_again(self) -> None:
        """Something has changed for those who wait."""
        self._waiting.unpark_all()

    async def come(self) -> None:
        """Wait until no response is running, asked for, or held back."""
        lane = self._session.lane(UPSTREAM)
        await lane.settle()
        while self.owes or lane.waiting:
            await self._waiting.park()
            await lane.settle()

    async def boundary(self) -> None:
        """Wait for a moment at which nobody speaks, nothing is asked, and what was said has been heard and
        written down."""
        carried = self._carried
        while True:
            await self.come()
            if self._session.meter.playout_ahead_s:
                await trio.sleep(self._session.meter.playout_ahead_s)
            elif carried.audio.speaking or carried.owes_turn or carried.awaits_words:
                await self._waiting.park()
            else:
                return

    async def billed(self) -> None:
        """Cancel what runs, and wait until the upstream has said what it came to, or is gone."""
        session = self._session
        stopped: set[str] = set()
        while self.owes and session.upstream.connection is not None:
            for response_id in self._responses.running - stopped:
                stopped.add(response_id)
                cancel = events.response_cancel(session.veil.own_id(), response_id)
                await session.upstream_edge.send_now(Client.RESPONSE_CANCEL, Event(cancel).payload)
            await self._waiting.park()
