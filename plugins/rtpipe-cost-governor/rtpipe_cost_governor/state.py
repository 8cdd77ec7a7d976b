"""What is kept for one session, and how much its next answer may cost."""

import secrets

import msgspec
import trio

from rtpipe import Json, Session
from rtpipe.protocol import events
from rtpipe.protocol.catalogue import UPSTREAM, Client
from rtpipe.protocol.session_config import audio_bytes_per_second
from rtpipe.protocol.usage import Usage
from rtpipe_cost_governor.bill import price_usage
from rtpipe_cost_governor.books import Cap, Reserved
from rtpipe_cost_governor.config import Caps
from rtpipe_cost_governor.prices import Price

IMAGE_TOKENS = 1600
"""Taken for an image that has not been billed yet. The real rule is not published; the prior is 85, and 170
for each tile of 512 x 512 pixels, of a picture of 1536 x 1536."""
_INPUT_TOKENS_PER_S = 10
OUTPUT_TOKENS_PER_S = 20
_CHARACTERS_PER_TOKEN = 3
LEAST_ANSWER_TOKENS = 100
"""An answer that could not be longer is not begun: five seconds of speech."""


class Context(msgspec.Struct):
    """What the next answer will read, in tokens: known from the last bill, and estimated since."""

    text: int = 0
    audio: int = 0
    image: int = 0
    characters: int = 0
    images: int = 0
    appended: int = 0
    """Payload bytes of audio that had been appended when the last bill came."""

    def billed(self, usage: Usage, appended: int) -> None:
        """A response's bill says what the conversation was, and what it added."""
        self.text, self.audio = usage.input_text + usage.output_text, usage.input_audio + usage.output_audio
        self.image = usage.input_image
        self.characters = self.images = 0
        self.appended = appended

    def longer_by(self, usage: Usage) -> None:
        """A response that read something else has added to the conversation."""
        self.text += usage.output_text
        self.audio += usage.output_audio


class State:
    """Made anew for each session."""

    def __init__(self) -> None:
        self.caps = Caps()
        self.price: Price
        self.upstream_kind = "openai"
        self.money: tuple[Cap, ...] = ()
        self.tokens: tuple[Cap, ...] = ()
        self.own_caps: dict[str, str] = {}
        """What an operator has said for this session alone."""
        self.counted_on: set[str] = set()
        """The counters that this session is one of those that share."""
        self.over = False
        self.began_s = 0.0
        """The session's clock when it began."""
        self.rates_watched = False
        self.dialled_model = ""
        self.context = Context()
        self.pending: list[Reserved] = []
        """For creates that went up and are not answered, in order."""
        self.repeats_metadata = False
        """Whether this upstream has been seen to repeat the metadata of a create."""
        self.running: dict[str, Reserved | None] = {}
        """By response; None until what it may cost is written down."""
        self.cancelled: set[str] = set()
        self.life = secrets.token_hex(4)
        """Part of what is written of this session: a process that goes on with it has another."""
        self.numbers = 0
        self.responses = 0
        self.images = 0
        self.image_micro_usd = 0
        self.cycle = ""
        self.uncached = False
        """Whether the cache has been of no use lately."""
        self.against = 0
        """How many answers in a row have said otherwise."""
        self.admitted = False
        self.gated = False
        self.told_to_end = ""
        """The item that tells the model to come to an end, while there is one."""
        self.landing = ""
        """Why the session is coming to its end; empty while it is not."""
        self.approach: trio.CancelScope | None = None
        """What waits for the goodbye, while that has not begun."""
        self.prunable: dict[str, bool] = {}
        """Items with audio or images that are in the conversation, the oldest first."""
        self.changed = trio.Event()

    def next_number(self) -> int:
        self.numbers += 1
        return self.numbers

    def tell_waiters(self) -> None:
        """Wake whoever waits for a response to begin or end."""
        self.changed.set()
        self.changed = trio.Event()

    @property
    def is_quiet(self) -> bool:
        """Whether no response runs or is asked for."""
        return not self.pending and not self.running


class Kept(msgspec.Struct):
    """What lasts when the session goes on in another process. Money and tokens are in the books."""

    lasted_s: float = 0.0
    responses: int = 0
    images: int = 0
    image_micro_usd: int = 0
    own_caps: dict[str, str] = {}
    context: Context = msgspec.field(default_factory=Context)


def keep(session: Session[State]) -> None:
    """After one of these has changed."""
    state = session.state
    kept = Kept(
        session.now() - state.began_s,
        state.responses,
        state.images,
        state.image_micro_usd,
        state.own_caps,
        msgspec.structs.replace(state.context, appended=0),  # there nothing has been appended
    )
    session.keep(msgspec.to_builtins(kept))


def restore(session: Session[State]) -> None:
    """As the session opens."""
    state, kept = session.state, msgspec.convert(session.kept, Kept)
    state.began_s = session.now() - kept.lasted_s
    state.responses, state.images = kept.responses, kept.images
    state.image_micro_usd = kept.image_micro_usd
    state.own_caps, state.context = kept.own_caps, kept.context


def reads(session: Session[State], create: Json) -> Usage:
    """What an answer is going to read, rather too much than too little: nothing is assumed to be cached."""
    context, config = session.state.context, session.effective
    told = len(str(config.get("instructions") or "")) + len(str(config.get("tools") or ""))
    response = events.response_of(create) or {}
    own = len(str(response.get("instructions") or "")) + len(str(response.get("tools") or ""))
    head = (told + own) // _CHARACTERS_PER_TOKEN
    if isinstance(response.get("input"), list):
        written = len(str(response["input"]))
        return Usage(input_text=head + written // _CHARACTERS_PER_TOKEN)
    pending = session.meter.count(UPSTREAM, Client.AUDIO_APPEND).bytes - context.appended
    seconds = pending * 3 / 4 / audio_bytes_per_second_in(config)
    return Usage(
        input_text=context.text + (context.characters // _CHARACTERS_PER_TOKEN) + head,
        input_audio=context.audio + int(seconds * _INPUT_TOKENS_PER_S),
        input_image=context.image + context.images * IMAGE_TOKENS,
    )


def audio_bytes_per_second_in(config: Json) -> int:
    """Of the caller's audio, decoded."""
    audio = config.get("audio")
    given = audio.get("input") if isinstance(audio, dict) else None
    return audio_bytes_per_second({"audio": {"output": given}} if isinstance(given, dict) else {})


def worst_cost(session: Session[State], create: Json, output_tokens: int, fallback: Price) -> tuple[int, int]:
    """Micro-dollars and tokens that an answer may come to if it says so many tokens."""
    usage = reads(session, create)
    spoken = events.speaks(create, session.effective)
    usage = msgspec.structs.replace(
        usage, output_audio=output_tokens if spoken else 0, output_text=0 if spoken else output_tokens
    )
    parts, _ = price_usage(usage, session.state.price, fallback)
    tokens = usage.input_text + usage.input_audio + usage.input_image + output_tokens
    return sum(parts.values()), tokens
