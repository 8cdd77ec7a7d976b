"""The dispatcher: which calls are ours, when their results go up, and who speaks next."""

import logging
from typing import ClassVar

import trio

from rtpipe import (
    Draft,
    Event,
    Host,
    Json,
    OnError,
    Plugin,
    Session,
    Tool,
    on_client,
    on_server,
    tool_error,
)
from rtpipe.protocol import events
from rtpipe.protocol.catalogue import Client, Server
from rtpipe_tool_dispatcher import asking, requests
from rtpipe_tool_dispatcher.announcing import Announcing
from rtpipe_tool_dispatcher.answering import Answer, Answering
from rtpipe_tool_dispatcher.config import Config
from rtpipe_tool_dispatcher.giving import Giving
from rtpipe_tool_dispatcher.state import Batch, Call, State
from rtpipe_tool_dispatcher.voice import CLIENT_CALL_S

log = logging.getLogger("rtpipe_tool_dispatcher")

_ALREADY_ACTIVE = "conversation_already_has_active_response"
_SHUTDOWN_S = 4.5


class ToolDispatcher(Plugin[Config, State]):
    """Answers the model's calls of the tools that stages offer; the client never hears of them."""

    # Without it a tool is missing; closing would cost the whole call.
    on_error: ClassVar[OnError] = "pass"
    # Its own creates are to wait for their turn and to be judged.
    before: ClassVar[tuple[str, ...]] = ("response-lock", "cost-governor")

    def __init__(self, config: Config, host: Host) -> None:
        super().__init__(config, host)
        self.answering = Answering(self)
        self.giving = Giving(config, self.stage)
        self.announcing = Announcing(config, self.answering.schemas)

    async def shutdown(self) -> None:
        """Let calls that may not be cancelled come to their end."""
        with trio.move_on_after(_SHUTDOWN_S):
            for run in tuple(self.answering.running):
                await run.done.wait()

    def warnings(self, tools: list[Tool]) -> list[str]:
        """What is wrong with tools that can be known before any session."""
        return self.announcing.complaints(tools)

    # --- what the model may call ----------------------------------------------------------------------------

    async def configure(self, session: Session[State], draft: Draft) -> None:
        """Announce the offered tools beside those of the client."""
        if draft.get("type") == "transcription":
            return
        theirs = draft.get("tools") or []
        if not isinstance(theirs, list):
            return  # for the upstream to refuse
        state = session.state
        state.client_tools |= requests.tool_names(theirs)
        offered = await session.offered_tools()
        state.tools = self.announcing.usable(offered, session.principal.tools, state.client_tools)
        state.announced |= set(state.tools)
        if state.tools:
            ours = [requests.declaration(tool) for tool in state.tools.values()]
            draft.set("tools", [*theirs, *ours])

    # --- the model calls ------------------------------------------------------------------------------------

    @on_server(Server.OUTPUT_ITEM_ADDED, Server.ITEM_ADDED, Server.ITEM_CREATED)
    def hide_calls(self, session: Session[State], event: Event) -> None:
        """Keep our calls from the client from the start; note which results have arrived."""
        item = events.item_of(event.data) or {}
        if self._is_ours(session, item):
            session.hide(str(item.get("id")))
        if event.type != Server.OUTPUT_ITEM_ADDED:
            self.giving.arrived(session, str(item.get("id")))

    @on_server(Server.OUTPUT_ITEM_DONE)
    def dispatch(self, session: Session[State], event: Event) -> None:
        """The one event by which calls are dispatched."""
        item, state = events.item_of(event.data) or {}, session.state
        if item.get("type") != "function_call":
            return
        batch = state.batches.setdefault(events.response_id_of(event.data) or "", Batch())
        call_id = str(item.get("call_id"))
        if not self._is_ours(session, item):
            batch.clients.add(call_id)
            return
        session.hide(str(item.get("id")))
        # A call that was interrupted has only a part of its arguments.
        if item.get("status", "completed") != "completed" or not state.is_new(call_id):
            return
        name = str(item.get("name"))
        written = item.get("arguments")
        call = Call(
            call_id,
            name,
            written if isinstance(written, str) else "",
            session.now(),
            batch,
            state.tools.get(name),
        )
        if not batch.open and not batch.outputs:
            batch.interrupted = state.voice.is_speaking(session.now())
            if self.config.filler == "model":
                session.start_soon(asking.hold_on, session, batch, self.config)
        batch.open[call_id] = call
        session.start_soon(self._answer, session, call)

    def _is_ours(self, session: Session[State], item: Json) -> bool:
        """Whether a call is of a tool announced here, or of one that does not exist."""
        name, state = str(item.get("name")), session.state
        if item.get("type") != "function_call" or name in state.client_tools:
            return False
        # A prompt that is stored upstream brings tools that only the upstream's configuration shows.
        return name in state.announced or name not in requests.tool_names(session.effective.get("tools"))

    async def _answer(self, session: Session[State], call: Call) -> None:
        try:
            answer = await self.answering.answer(session, call)
        except Exception:  # whatever it is: the model must not be left waiting
            log.exception("session %s: a call of %s was not answered", session.id, ascii(call.name[:80]))
            answer = Answer(tool_error(self.config.failure_message, "no"), "error")
        batch = call.batch
        del batch.open[call.call_id]
        batch.matters |= answer.status != "cancelled"
        batch.outputs.append((call, answer.envelope))
        self.giving.record(session, call, answer.status)
        session.state.voice.wake()
        self.giving.give(session, batch)

    # --- who speaks -----------------------------------------------------------------------------------------

    @on_server(Server.SPEECH_STARTED)
    def caller_speaks(self, session: Session[State]) -> None:
        """Barge-in: what may be cancelled is, and our "hold on" stops."""
        state = session.state
        state.voice.caller_began(session.now())
        state.interrupt("the caller spoke")
        self._stop_filler(session)

    @on_server(Server.SPEECH_STOPPED, Server.AUDIO_CLEARED)
    def caller_pauses(self, session: Session[State], event: Event) -> None:
        """The caller is silent; what was cleared is no turn."""
        voice = session.state.voice
        voice.caller_paused()
        if event.type == Server.SPEECH_STOPPED:
            voice.turn_ended(session.now())

    @on_server(Server.AUDIO_COMMITTED)
    def caller_has_spoken(self, session: Session[State]) -> None:
        """A turn of the caller's is in the conversation."""
        session.state.turn()
        session.state.voice.caller_paused()
        session.state.voice.turn_ended(session.now())

    @on_server(Server.RESPONSE_CREATED)
    def response_began(self, session: Session[State], event: Event) -> None:
        """Somebody else than the caller speaks."""
        response = events.response_of(event.data) or {}
        response_id = events.response_id_of(event.data) or ""
        filler = events.response_metadata(event.data).get(requests.FILLER) == "yes"
        in_conversation = response.get("conversation_id", "") is not None
        if not (filler or in_conversation or "audio" in (response.get("output_modalities") or [])):
            return
        voice = session.state.voice
        voice.began(
            response_id, filler=filler, in_conversation=in_conversation, up_to_date=not session.state.outputs
        )
        if voice.is_speaking(session.now()):
            self._stop_filler(session)

    @on_server(Server.RESPONSE_DONE)
    def response_ended(self, session: Session[State], event: Event) -> None:
        """The results of its calls may go up now."""
        state, response_id = session.state, events.response_id_of(event.data) or ""
        batch = state.batches.get(response_id)
        if batch is not None:
            batch.ended = True
            if not batch.open and not batch.outputs:
                del state.batches[response_id]  # nothing in it was ours
            else:
                self._end_batch(session, batch, event)
        state.voice.ended(response_id)

    def _end_batch(self, session: Session[State], batch: Batch, event: Event) -> None:
        for call_id in batch.clients:
            session.state.voice.clients[call_id] = session.now() + CLIENT_CALL_S
        if (events.response_of(event.data) or {}).get("status") == "cancelled":
            session.state.interrupt("the response was cancelled")
        self.giving.give(session, batch)

    def _stop_filler(self, session: Session[State]) -> None:
        response_id = session.state.voice.filler_response
        if response_id is not None:
            session.state.voice.filler_response = None
            session.send_upstream(requests.cancel(response_id))

    @on_server(Server.ERROR)
    def refused(self, session: Session[State], event: Event) -> None:
        """Something of ours may have been refused."""
        code, event_id, _ = events.error_of(event.data)
        if event_id is None:
            return
        self.giving.refused(session, event_id, code)
        session.state.voice.refused(event_id, again=code == _ALREADY_ACTIVE, now_s=session.now())

    # --- the client -----------------------------------------------------------------------------------------

    @on_client(Client.RESPONSE_CREATE)
    def somebody_asks(self, session: Session[State], event: Event) -> None:
        """An answer is asked for by somebody else; it may bring tools of its own."""
        response, state = events.response_of(event.data) or {}, session.state
        if event.origin == "client" and (names := requests.tool_names(response.get("tools"))):
            state.client_tools |= names
            if names & set(state.tools):
                session.reconfigure()
        if not events.is_out_of_band(event.data):
            state.voice.turn_ended(session.now())

    @on_client(Client.ITEM_CREATE)
    def client_writes(self, session: Session[State], event: Event) -> None:
        """The client answers calls of its own, or the caller writes."""
        item = events.item_of(event.data) or {}
        if event.origin != "client":
            return
        if item.get("type") == "function_call_output":
            session.state.voice.client_answered(str(item.get("call_id")), session.now())
        elif item.get("role") == "user":
            session.state.turn()

    @on_client(Client.RESPONSE_CANCEL)
    def client_cancels(self, session: Session[State], event: Event) -> None:
        """The client wants silence: of everything, or of one of the responses that made calls."""
        response_id = events.response_id_of(event.data)
        if event.origin == "client" and (response_id is None or response_id in session.state.batches):
            session.state.interrupt("the client cancelled")

    # --- ends -----------------------------------------------------------------------------------------------

    def client_detached(self, session: Session[State]) -> None:
        """Nobody is asked to hold the line who is not there."""
        session.state.voice.alone(True)

    def client_attached(self, session: Session[State]) -> None:
        """There is somebody again."""
        session.state.voice.alone(False)

    def upstream_replaced(self, session: Session[State]) -> None:
        """Another upstream has taken over."""
        session.state.voice.upstream_replaced()
        self.giving.upstream_replaced(session)

    def session_close(self, session: Session[State]) -> None:
        """Calls still open are cancelled with the session, or left to end by themselves."""
        for batch in session.state.batches.values():
            for call in batch.open.values():
                is_left = call.tool is not None and not call.tool.cancellable
                self.giving.record(session, call, "left" if is_left else "cancelled")
