"""What was granted may be taken away, or be another amount, while those who were let in are here."""

import logging
from collections.abc import Mapping
from typing import Final

from rtpipe.api.errors import HookFailed, Refused
from rtpipe.api.event import HOST
from rtpipe.api.principal import Principal
from rtpipe.chain.guard import HookCall
from rtpipe.daemon.process import Process
from rtpipe.session.closing import Ending
from rtpipe.session.session import Session

log = logging.getLogger("rtpipe.daemon")

UNAUTHORIZED: Final = 3000
"""The close code for somebody whose credentials are not, or no longer, good."""
_CODE: Final = "credentials_revoked"
_MESSAGE: Final = "The credentials of this connection are no longer valid."
REVOKED: Final = f"invalid_request_error.{_CODE}"


async def may_stay(process: Process, principal: Principal) -> bool:
    """Ask the stages of the newest chain; one that says no decides, as does one that fails and may not."""
    for call in process.chain.calls("still_allowed"):
        try:
            if not _verdict(process, call, await process.guard.call(call, principal)):
                return False
        except (HookFailed, Refused):
            if call.on_error == "close":
                return False
    return True


def _verdict(process: Process, call: HookCall, answer: object) -> bool:
    if answer is not None and not isinstance(answer, bool):
        raise process.guard.nonsense(call, answer)
    return answer is not False


async def require_standing(process: Process, principal: Principal) -> None:
    """Raises ``Refused`` for somebody who may not stay, as when a reload came while he was let in."""
    if not await may_stay(process, principal):
        raise Refused(401, _CODE, _MESSAGE, {"WWW-Authenticate": "Bearer"})


async def renew_limits(process: Process, session: Session) -> None:
    """Give the session's principal the limits it has by now; a stage that fails to say leaves them."""
    for call in process.chain.calls("current_limits"):
        try:
            limits = await process.guard.call(call, session.principal)
            if not (limits is None or isinstance(limits, Mapping)):
                raise process.guard.nonsense(call, limits)
        except HookFailed:
            continue
        except Refused:
            process.guard.refused(call)
            continue
        if limits is not None:
            if limits != session.principal.limits and not session.ended.is_set():
                session.limit(limits)
            return


async def judge_everybody(process: Process) -> None:
    """End the sessions, taps and tool services of those who may not stay; renew the limits of the others."""
    for session in list(process.sessions.values()):
        if not await may_stay(process, session.principal):
            log.warning("session %s: %s may not stay", session.id, session.principal.id)
            session.end(Ending(UNAUTHORIZED, REVOKED, HOST, (_CODE, _MESSAGE)))
        else:
            await renew_limits(process, session)
    for scope, principal in list(process.guests.items()):
        if not await may_stay(process, principal):
            log.warning("a connection of %s may not stay", principal.id)
            scope.cancel()
