"""Asking the model to speak when nobody else does: for the answer to results, and for a "hold on"."""

import logging

import trio

from rtpipe import Session
from rtpipe_tool_dispatcher import requests
from rtpipe_tool_dispatcher.config import Config
from rtpipe_tool_dispatcher.state import Batch, State

log = logging.getLogger("rtpipe_tool_dispatcher")


async def ask_for_answer(session: Session[State], config: Config) -> None:
    """Ask once for all results that are in the conversation, unless a response takes them up by itself."""
    state, voice = session.state, session.state.voice
    while voice.owes:
        wait_s = voice.wait_s(session.now())
        if wait_s > 0:
            await voice.change(wait_s)
        elif voice.create_id is not None:
            log.warning("session %s: a create for results was never answered", session.id)
            voice.owes = False
        else:
            state.rounds += 1
            create = requests.answer(
                session.effective.get("tool_choice"), may_call=state.rounds < config.max_rounds
            )
            voice.asked(session.send_upstream(create, audible=True), session.now())
    state.is_asking = False


async def hold_on(session: Session[State], batch: Batch, config: Config) -> None:
    """Have the model say a few words if a batch takes long, once, when nobody is speaking."""
    await trio.sleep(config.filler_after_s)
    voice = session.state.voice
    while batch.open and not batch.interrupted:
        wait_s = max(voice.wait_s(session.now(), for_filler=True), session.meter.playout_ahead_s)
        if wait_s > 0:
            await voice.change(wait_s)
            continue
        create = requests.hold_on(config.filler_instructions)
        voice.asked_for_filler(session.send_upstream(create, audible=True), session.now())
        return
