"""Runs behind the snippet for Pipecat's service: a pipeline of its own for each turn."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from loguru import logger
from pipecat.adapters.schemas.function_schema import FunctionSchema
from pipecat.adapters.schemas.tools_schema import ToolsSchema
from pipecat.frames.frames import (
    EndFrame,
    Frame,
    InputAudioRawFrame,
    InputImageRawFrame,
    InterruptionFrame,
    LLMFullResponseEndFrame,
    LLMRunFrame,
    LLMTextFrame,
    TTSAudioRawFrame,
    UserStoppedSpeakingFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import LLMContextAggregatorPair
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.services.openai.realtime import events
from pipecat.workers.runner import WorkerRunner
from turns import AUDIO, DISPATCHED, GREETING, LONG, SNIPPET, SPEECH, attempt, chunks, same

logger.remove()

DICE = FunctionSchema(
    name="dice", description="Rolls.", properties={"sides": {"type": "integer"}}, required=["sides"]
)
MANUAL = events.AudioConfiguration(input=events.AudioInput(turn_detection=False))


class Ear(FrameProcessor):
    """Behind the service: the frames it made, for the turn to read."""

    def __init__(self) -> None:
        super().__init__()
        self.frames: asyncio.Queue[Frame] = asyncio.Queue()

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        self.frames.put_nowait(frame)
        await self.push_frame(frame, direction)


class Talk:
    """One pipeline around one service."""

    def __init__(self, service: Any, context: LLMContext) -> None:
        self.service = service
        self.ear = Ear()
        self.items: list[str] = []
        """Ids of the conversation's items, in order."""

        @service.event_handler("on_conversation_item_created")
        async def created(service: Any, item_id: str, item: Any) -> None:
            self.items.append(item_id)

        pair = LLMContextAggregatorPair(context)
        self.worker = PipelineWorker(
            Pipeline([pair.user(), service, self.ear, pair.assistant()]), cancel_on_idle_timeout=False
        )

    async def send(self, *frames: Frame) -> None:
        for frame in frames:
            await self.worker.queue_frame(frame)

    async def answer(self) -> str:
        """What the next answer says that says anything: a call of a tool says nothing."""
        said = ""
        while True:
            frame = await self.ear.frames.get()
            if isinstance(frame, LLMTextFrame):
                said += frame.text
            elif isinstance(frame, LLMFullResponseEndFrame) and said:
                return said

    async def hears(self) -> None:
        """An answer to speech. What the beginning of that interrupts may still be on its way through the
        pipeline, and take words of a quick answer with it: the first ones have to be there."""
        said = await self.answer()
        same(said[:8], "I heard "[: len(said)])

    async def speak(self, pcm: bytes) -> None:
        for chunk in chunks(pcm):
            await self.send(InputAudioRawFrame(audio=chunk, sample_rate=24000, num_channels=1))


async def text(talk: Talk) -> None:
    await talk.send(LLMRunFrame())
    same(await talk.answer(), f"You said: {GREETING}")


async def audio(talk: Talk) -> None:
    await talk.speak(AUDIO)
    await talk.send(UserStoppedSpeakingFrame())
    same(await talk.answer(), "I heard 0.5 seconds of audio.")


async def heard_audio(talk: Talk) -> None:
    await talk.speak(SPEECH)
    await talk.hears()


async def image(talk: Talk) -> None:
    grey = bytes([128]) * (640 * 480 * 3)
    await talk.send(InputImageRawFrame(image=grey, size=(640, 480), format="RGB"))
    await talk.send(LLMRunFrame())
    same(await talk.answer(), "You said: Look. I see a JPEG image, 640 x 480.")


async def tool(talk: Talk) -> None:
    async def dice(params: Any) -> None:
        await params.result_callback({"rolled": params.arguments["sides"] - 2})

    talk.service.register_function("dice", dice)
    await talk.send(LLMRunFrame())
    same(await talk.answer(), 'The tool answered: {"rolled": 4}')


async def interruption(talk: Talk) -> None:
    await talk.send(LLMRunFrame())
    while not isinstance(await talk.ear.frames.get(), TTSAudioRawFrame):
        pass
    await talk.send(InterruptionFrame())
    for _ in ("at once", "when the model has stopped"):
        while not isinstance(await talk.ear.frames.get(), LLMFullResponseEndFrame):
            pass
    item = await talk.service.retrieve_conversation_item(talk.items[-1])
    same((item.role, item.status), ("assistant", "incomplete"))


async def error(talk: Talk) -> None:
    await talk.service.send_client_event(events.ResponseCancelEvent(event_id="mine"))
    await talk.send(LLMRunFrame())
    same(await talk.answer(), f"You said: {GREETING}")


async def dispatched(talk: Talk) -> None:
    await talk.send(LLMRunFrame())
    hold_on, answer = await talk.answer(), await talk.answer()
    same((hold_on[:5], answer[:17]), ("I am ", "The tool answered"))
    await talk.speak(SPEECH)
    await talk.hears()


TEXT = events.SessionProperties(output_modalities=["text"])
TURNS: dict[Callable[[Talk], Awaitable[None]], tuple[events.SessionProperties, str | None]] = {
    text: (TEXT, GREETING),
    audio: (events.SessionProperties(audio=MANUAL), None),
    heard_audio: (events.SessionProperties(), None),
    image: (events.SessionProperties(), "Look."),
    tool: (events.SessionProperties(), 'call dice {"sides": 6}'),
    interruption: (events.SessionProperties(audio=MANUAL), LONG),
    error: (events.SessionProperties(), GREETING),
}


async def run(
    turn: Callable[[Talk], Awaitable[None]], properties: events.SessionProperties, said: str | None
) -> None:
    names: dict[str, Any] = {"properties": properties}
    exec(SNIPPET, names)  # noqa: S102
    service = names["service"]
    messages = [{"role": "user", "content": said}] if said else []
    tools = ToolsSchema(standard_tools=[DICE]) if turn is tool else None
    talk = Talk(service, LLMContext(messages, **({"tools": tools} if tools else {})))
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(talk.worker)
    running = asyncio.create_task(runner.run())
    try:
        # Before, it drops what it is told or sends it too early, and no event of its own says when.
        while not service._api_session_ready:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await turn(talk)
    finally:
        await talk.send(EndFrame())
        await running


async def main() -> None:
    alone = {dispatched: (events.SessionProperties(), "call lookup")}
    for turn, (properties, said) in (alone if DISPATCHED else TURNS).items():
        await attempt(turn.__name__.replace("_", " "), run(turn, properties, said))


asyncio.run(main())
