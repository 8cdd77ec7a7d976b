"""The plugin: holds events with images, has the images made smaller, lets the events go on."""

import copy
import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

import trio

from rtpipe import (
    Event,
    Hold,
    Host,
    Json,
    OnError,
    Plugin,
    Session,
    Verdict,
    facts,
    on_client,
    on_server,
    reject,
)
from rtpipe.protocol import events
from rtpipe.protocol.catalogue import Client, Server
from rtpipe_image_compressor.config import Config
from rtpipe_image_compressor.contents import check_size, decoded, head_of, images_in, not_an_image, urls_in
from rtpipe_image_compressor.fetching import Fetcher
from rtpipe_image_compressor.pictures import compress
from rtpipe_image_compressor.refusal import BadImage
from rtpipe_image_compressor.seen import Seen, Shown
from rtpipe_image_compressor.tokens import estimate

# Its lines have the URLs of callers in them.
for name in ("httpx2", "httpcore2"):
    logging.getLogger(name).setLevel(logging.WARNING)

CHARACTERS_A_TOKEN = 4
Result = TypeVar("Result")


@dataclass(slots=True)
class State:
    """Of one session."""

    keys: int = 0
    seen: Seen = field(default_factory=Seen)


class ImageCompressor(Plugin[Config, State]):
    """Makes images smaller before the model is paid to look at them."""

    # Metadata may say where the caller lives: what could not be looked at does not go.
    on_error: ClassVar[OnError] = "drop"

    def __init__(self, config: Config, host: Host) -> None:
        super().__init__(config, host)
        self._fetcher = Fetcher(config.fetch_from, config.max_bytes)
        self._worker = trio.CapacityLimiter(1)
        self._pending = 0

    # --- what clients send ----------------------------------------------------------------------------------

    @on_client(Client.ITEM_CREATE, Client.RESPONSE_CREATE)
    def hold_images(self, session: Session[State], event: Event) -> Verdict:
        """Hold what has an image in it until the worker has seen to that."""
        parts = list(images_in(event.data))
        if not parts:
            return None
        try:
            for part in parts:
                self._judge(part)
        except BadImage as bad:
            return reject(event, bad.code, bad.message)
        if self._pending + len(parts) > self.config.max_waiting:
            return reject(
                event, "too_many_images_waiting", "Too many images are waiting: send it again later."
            )
        session.state.keys += 1
        key = f"image-{session.state.keys}"
        self._pending += len(parts)
        session.start_soon(self._see_to, session, event, key, len(parts))
        return Hold(key)

    def _judge(self, part: Json) -> None:
        """What can be said at once. Raises ``BadImage``."""
        url = part.get("image_url")
        if not isinstance(url, str):
            raise not_an_image()
        begin = head_of(url)
        if begin is not None:
            check_size((len(url) - begin) * 3 // 4 - 2, self.config.max_bytes)
        elif url[:5].lower() == "data:":
            raise not_an_image()
        else:
            self._fetcher.check(url)

    async def _see_to(self, session: Session[State], event: Event, key: str, count: int) -> None:
        """Let a held event go on with smaller images, or tell why not."""
        # Nothing that waits in the conversation passes it, so what is said of its images stays true.
        data = copy.deepcopy(event.data)
        records: list[facts.ImageCompressed] = []
        sent: list[tuple[str, Shown]] = []
        try:
            for part in images_in(data):
                fact, shown = await self._shrink(session, part, event.type == Client.ITEM_CREATE)
                records.append(fact)
                if shown is not None:
                    sent.append((part["image_url"], shown))
        except BadImage as bad:
            session.drop_held(key, bad.message, code=bad.code, outcome="refused")
            return
        except Exception:
            session.drop_held(key, f"The {self.stage} plugin failed on this event.")
            raise
        finally:
            self._pending -= count
        for url, shown in sent:
            session.state.seen.will_send(url, shown)
        if session.release(key, None if data == event.data else event.replace(data)):
            for fact in records:
                session.record(fact)

    async def _shrink(
        self, session: Session[State], part: Json, stays: bool
    ) -> tuple[facts.ImageCompressed, Shown | None]:
        """Change a part with an image; what became of it, and what the conversation holds then."""
        began_s = session.now()
        with trio.move_on_after(self.config.timeout_s):
            fact, shown = await self._replace(session, part, stays and self.config.repeat == "once", began_s)
            return fact, shown if stays else None
        message = f"The image was not ready within {self.config.timeout_s:g} s: send it again later."
        raise BadImage("image_timed_out", message)

    async def _replace(
        self, session: Session[State], part: Json, may_refer: bool, began_s: float
    ) -> tuple[facts.ImageCompressed, Shown | None]:
        url, asked = part["image_url"], str(part.get("detail") or "auto")
        detail = self.config.detail or asked
        begin = head_of(url)
        if begin is None:
            data = await self._fetcher.fetch(self._fetcher.check(url))
        else:
            data = await self._in_worker(decoded, url, begin)
        digest = await self._in_worker(_digest, data)
        found = session.state.seen.find(digest, detail) if may_refer else None
        if found is not None:
            place, earlier = found
            text = f"(The same image once more: image {place} of this conversation, counted from the start.)"
            part.clear()
            part.update(type="input_text", text=text)
            return self._fact(
                session,
                "repeated",
                began_s,
                before=(len(data), earlier.size, estimate(*earlier.size, asked)),
                after=(len(text), (0, 0), len(text) // CHARACTERS_A_TOKEN),
            ), None
        picture = await self._in_worker(compress, data, self.config)
        part["image_url"] = picture.as_url()
        if self.config.detail:
            part["detail"] = self.config.detail
        return self._fact(
            session,
            "kept" if picture.data == data else "compressed",
            began_s,
            before=(len(data), picture.before, estimate(*picture.before, asked)),
            after=(len(picture.data), picture.after, estimate(*picture.after, detail)),
        ), Shown(digest, detail, picture.before)

    def _fact(
        self,
        session: Session[State],
        outcome: str,
        began_s: float,
        before: tuple[int, tuple[int, int], int],
        after: tuple[int, tuple[int, int], int],
    ) -> facts.ImageCompressed:
        return facts.ImageCompressed(
            stage=self.stage,
            outcome=outcome,
            duration_s=session.now() - began_s,
            bytes_before=before[0],
            bytes_after=after[0],
            pixels_before=before[1][0] * before[1][1],
            pixels_after=after[1][0] * after[1][1],
            estimated_tokens_before=before[2],
            estimated_tokens_after=after[2],
        )

    async def _in_worker(self, function: Callable[..., Result], *args: Any) -> Result:
        """In the one thread of this instance. Who leaves does not wait for it, but it stays one."""
        return await trio.to_thread.run_sync(function, *args, abandon_on_cancel=True, limiter=self._worker)

    # --- what the model says --------------------------------------------------------------------------------

    @on_server(Server.ITEM_ADDED, Server.ITEM_DONE, Server.ITEM_CREATED)
    def strip_echo(self, session: Session[State], event: Event) -> Verdict:
        """Learn that the model has the images; the client need not get them back."""
        urls = urls_in(event.data)
        if not urls:
            return None
        session.state.seen.confirmed(events.item_id_of(event.data) or "", urls)
        data = copy.deepcopy(event.data)
        for part in images_in(data):
            part.pop("image_url", None)
        return event.replace(data)

    @on_server(Server.ITEM_DELETED)
    def learn_deleted(self, session: Session[State], event: Event) -> None:
        """What is no longer there cannot be referred to."""
        session.state.seen.deleted(events.item_id_of(event.data) or "")

    @on_server(Server.RESPONSE_DONE)
    def learn_cut(self, session: Session[State], event: Event) -> None:
        """The model may have cut its conversation."""
        session.state.seen.answered(event.data)

    def upstream_replaced(self, session: Session[State]) -> None:
        """Another model may have got less."""
        session.state.seen.forget()


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()
