"""Creates wait until what the caller said before them has been judged."""

import re
import secrets
from collections import deque
from dataclasses import dataclass, field

import httpx2
import msgspec
import trio

from rtpipe import Draft, Drop, Event, Hold, Json, Plugin, Session, Verdict, facts, on_client, on_server
from rtpipe.protocol import events
from rtpipe.protocol import session_config as sc
from rtpipe.protocol.catalogue import Client, Server
from rtpipe_input_guardrail.config import Config

MAX_CHARS = 10_000
"""Of a longer text this much is judged at a time; pieces overlap, so that nothing hides at a seam."""
OVERLAP = 200
TRANSCRIPTION = "audio.input.transcription"
_KEPT = ("conversation", "metadata", "output_modalities", "audio")
"""What of a create its refusal has too: whoever asked knows it by that, and hears it in the way it wanted."""
Said = list[tuple[str | None, str | None]]
"""Item and text; the text is None where there is no transcript."""


@dataclass(eq=False)
class State:
    """What one session's caller has said and nobody has judged yet."""

    committed: int = 0
    """Commits of the client's that the upstream has not confirmed."""
    speaking: set[str] = field(default_factory=set)
    """Items whose transcript has not come."""
    spoken: Said = field(default_factory=list)
    """Transcripts that no create has been judged by."""
    typed: Said = field(default_factory=list)
    """Messages that no create has come behind."""
    creates: deque[tuple[str, Event, Said]] = field(default_factory=deque)
    """Those held, each under its key and with what was typed before it. The first is being judged."""
    keys: int = 0
    heard: trio.Event = field(default_factory=trio.Event)
    """Set, and replaced, when the above have changed."""

    @property
    def is_waiting(self) -> bool:
        return bool(self.committed or self.speaking)

    def changed(self) -> None:
        self.heard.set()
        self.heard = trio.Event()


class InputGuardrail(Plugin[Config, State]):
    """Lets no answer begin to something that was not judged. Fails closed."""

    before = ("response-lock",)

    async def startup(self) -> None:
        words = "|".join(rf"(?<!\w){re.escape(word)}(?!\w)" for word in self.config.words)
        both = "|".join(f"(?:{each})" for each in (words, self.config.pattern) if each)
        self._forbidden = re.compile(both, re.IGNORECASE) if both else None
        self._http = httpx2.AsyncClient(timeout=self.config.classifier_timeout_s, trust_env=False)

    async def shutdown(self) -> None:
        await self._http.aclose()

    def session_open(self, session: Session[State]) -> None:
        session.gate_turns(True)

    def configure(self, draft: Draft) -> None:
        if not draft.get(TRANSCRIPTION):
            draft.set(TRANSCRIPTION, {"model": self.config.transcription_model})

    # --- what the caller says -------------------------------------------------------------------------------

    @on_client(Client.ITEM_CREATE)
    def read_typed(self, session: Session[State], event: Event) -> Verdict:
        """Remember what was typed; give it an id by which it can be taken out again."""
        data = event.data
        text = _typed(events.item_of(data))
        if not text:
            return None
        item_id = events.item_id_of(data) or f"item_{secrets.token_hex(10)}"
        session.state.typed.append((item_id, text))
        return None if events.item_id_of(data) else event.replace(events.with_item_id(data, item_id))

    @on_client(Client.AUDIO_COMMIT)
    def expect_turn(self, session: Session[State]) -> None:
        session.state.committed += 1

    @on_server(Server.AUDIO_COMMITTED, Server.ERROR)
    def begin_turn(self, session: Session[State], event: Event) -> None:
        """A turn will be transcribed, or a commit was refused."""
        state = session.state
        if event.type == Server.AUDIO_COMMITTED:
            state.speaking.add(events.item_id_of(event.data) or "")
        elif events.error_of(event.data)[0] != "input_audio_buffer_commit_empty":
            return
        state.committed = max(0, state.committed - 1)
        state.changed()

    @on_server(Server.TRANSCRIPTION_COMPLETED, Server.TRANSCRIPTION_FAILED)
    def read_transcript(self, session: Session[State], event: Event) -> Verdict:
        state, item_id = session.state, events.item_id_of(event.data)
        text = event.data.get("transcript")
        if item_id in state.speaking:
            state.speaking.discard(item_id or "")
            state.spoken.append((item_id, text if isinstance(text, str) else None))
            state.changed()
        return self._unless_asked(session)

    @on_server(Server.TRANSCRIPTION_DELTA, Server.TRANSCRIPTION_SEGMENT)
    def hide_pieces(self, session: Session[State]) -> Verdict:
        return self._unless_asked(session)

    def _unless_asked(self, session: Session[State]) -> Verdict:
        """A client that asked for no transcripts gets none."""
        return None if sc.get(session.asked, TRANSCRIPTION) else Drop("not asked for", ours=True)

    # --- what the model is asked ----------------------------------------------------------------------------

    @on_client(Client.RESPONSE_CREATE)
    def hold_until_judged(self, session: Session[State], event: Event) -> Verdict:
        state = session.state
        given = (events.response_of(event.data) or {}).get("input")
        texts = [_typed(item) for item in given if isinstance(item, dict)] if isinstance(given, list) else []
        # What is typed behind this create is none of its business: the model reads it later.
        typed, state.typed = [*state.typed, *((None, text) for text in texts if text)], []
        if not (typed or state.spoken or state.is_waiting or state.creates):
            return None
        state.keys += 1
        state.creates.append((str(state.keys), event, typed))
        if len(state.creates) == 1:
            session.start_soon(self._judge_all, session)
        return Hold(str(state.keys))

    async def _judge_all(self, session: Session[State]) -> None:
        """Judge the creates in the order in which they came."""
        creates = session.state.creates
        while creates:
            await self._judge(session, *creates[0])
            creates.popleft()

    async def _judge(self, session: Session[State], key: str, create: Event, typed: Said) -> None:
        """Release a create, or have a refusal spoken in its place."""
        state = session.state
        with trio.move_on_after(self.config.transcript_timeout_s):
            while state.is_waiting:
                await state.heard.wait()
        # What did not come in time is missing, once; what comes later is no longer waited for.
        state.spoken += [(item_id, None) for item_id in state.speaking]
        state.speaking.clear()
        state.committed = 0
        said, state.spoken = [*typed, *state.spoken], []
        reasons = [(item_id, await self._fault(text)) for item_id, text in said]
        faults = [(item_id, reason) for item_id, reason in reasons if reason is not None]
        if faults:
            self._refuse(session, faults)
            session.release(key, create.replace(self._refusal(create.data)))
        else:
            session.release(key)

    def _refuse(self, session: Session[State], faults: list[tuple[str | None, str]]) -> None:
        for item_id, reason in faults:
            session.record(
                facts.Refused(
                    stage=self.stage, code="input_refused", message=reason, principal=session.principal.id
                )
            )
            if item_id and not self.config.keep_item:
                session.send_upstream(Event({"type": Client.ITEM_DELETE, "item_id": item_id}))

    def _refusal(self, create: Json) -> Json:
        """The create, asking for the refusal: without the conversation as its input, lest it is talked
        into an answer after all."""
        wish = events.response_of(create) or {}
        kept = {name: wish[name] for name in _KEPT if name in wish}
        refusal = {"instructions": self.config.refusal, "input": [], "tool_choice": "none"}
        return {**create, "response": {**kept, **refusal}}

    # --- what is refused ------------------------------------------------------------------------------------

    async def _fault(self, text: str | None) -> str | None:
        """Why a text is refused; None if it is not. Never says what was in it."""
        if text is None:
            return "no transcript" if self.config.on_no_transcript == "refuse" else None
        for start in range(0, max(len(text), 1), MAX_CHARS):
            if self._forbidden is not None and self._forbidden.search(
                text[start : start + MAX_CHARS + OVERLAP]
            ):
                return "a forbidden word or pattern"
        return await self._classified(text) if self.config.classifier_url and text.strip() else None

    async def _classified(self, text: str) -> str | None:
        allowed = None
        with trio.move_on_after(self.config.classifier_timeout_s):
            try:
                answer = await self._http.post(self.config.classifier_url, json={"text": text})
                answer.raise_for_status()
                allowed = msgspec.json.decode(answer.content, type=dict[str, object]).get("allowed")
            except (httpx2.HTTPError, msgspec.MsgspecError):
                allowed = None
        if isinstance(allowed, bool):
            return None if allowed else "the classifier"
        return "the classifier failed" if self.config.on_classifier_failure == "refuse" else None


def _typed(item: Json | None) -> str:
    """The text of a user's message."""
    if item is None or item.get("type") != "message" or item.get("role") != "user":
        return ""
    content = item.get("content")
    parts = content if isinstance(content, list) else []
    return "\n".join(
        part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str)
    )
