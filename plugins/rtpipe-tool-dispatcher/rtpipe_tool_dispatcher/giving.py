"""What goes up for calls: their results, as outputs or as messages, and then the wish for an answer."""

import logging
import secrets

from rtpipe import Session, facts
from rtpipe_tool_dispatcher import arguments as args
from rtpipe_tool_dispatcher import asking, requests
from rtpipe_tool_dispatcher.config import Config
from rtpipe_tool_dispatcher.state import Batch, Call, Output, State

log = logging.getLogger("rtpipe_tool_dispatcher")


class Giving:
    """Gives the model results, for all sessions of one plugin instance, and records what became of calls."""

    def __init__(self, config: Config, stage: str) -> None:
        self._config = config
        self._stage = stage

    def give(self, session: Session[State], batch: Batch) -> None:
        """Send the answers there are, not before their response is done; ask for one when it was the last."""
        if not batch.ended:
            return
        outputs, batch.outputs = batch.outputs, []
        for call, envelope in outputs:
            self._send(session, call.call_id, call.name, envelope, as_message=batch.as_messages)
        if batch.open:
            return
        state = session.state
        state.batches = {key: each for key, each in state.batches.items() if each is not batch}
        if batch.matters:
            self._owe(session)

    def late(self, session: Session[State], call: Call, envelope: str | None) -> None:
        """An answer after the time limit: given once as a message, or dropped (None)."""
        self.record(session, call, "late-dropped" if envelope is None else "late-offered")
        if envelope is not None:
            self._send(session, call.call_id, call.name, envelope, as_message=True)
            self._owe(session)

    def arrived(self, session: Session[State], item_id: str) -> None:
        """An item is in the conversation."""
        session.state.outputs.pop(item_id, None)

    def refused(self, session: Session[State], event_id: str, code: str | None) -> None:
        """The upstream has refused something: an output is told as a message then."""
        state = session.state
        for item_id, output in list(state.outputs.items()):
            if output.event_id == event_id:
                del state.outputs[item_id]
                name = ascii(output.name[:80])
                log.warning("session %s: a result of %s was refused: %s", session.id, name, ascii(code))
                if not output.is_message:
                    self._send(session, "", output.name, output.envelope, as_message=True)

    def upstream_replaced(self, session: Session[State]) -> None:
        """What is still to be answered is told as a message. What was told and had not arrived the gateway
        tells the new one again."""
        state = session.state
        for batch in list(state.batches.values()):
            batch.ended = batch.as_messages = True
            if batch.open or batch.outputs:
                self.give(session, batch)
        state.batches = {key: each for key, each in state.batches.items() if each.open}

    def record(self, session: Session[State], call: Call, status: str) -> None:
        """Say what became of a call."""
        shown = ""
        if self._config.record_arguments and call.tool is not None:
            try:
                shown = args.shown(args.parse(call.arguments), call.tool.mask)
            except ValueError:
                shown = ""
        session.record(
            facts.ToolCalled(
                name=call.shown_name,
                call_id=call.call_id,
                stage=self._stage,
                duration_s=session.now() - call.started_s,
                status=status,
                arguments=shown,
            )
        )

    def _send(
        self, session: Session[State], call_id: str, name: str, envelope: str, *, as_message: bool
    ) -> None:
        item_id = f"tool_{secrets.token_hex(8)}"
        event = (
            requests.message(item_id, name, envelope)
            if as_message
            else requests.output(item_id, call_id, envelope)
        )
        event_id = session.send_upstream(event)
        session.state.outputs[item_id] = Output(name, envelope, event_id, as_message)

    def _owe(self, session: Session[State]) -> None:
        session.state.voice.owes = True
        if not session.state.is_asking:
            session.state.is_asking = True
            session.start_soon(asking.ask_for_answer, session, self._config)
