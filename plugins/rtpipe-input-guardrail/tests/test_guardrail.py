"""What is answered, what is refused, and every option."""

import tomllib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from rtpipe import Plugin, facts, on_client
from rtpipe.testing import ChainHarness
from rtpipe_input_guardrail import Config, InputGuardrail

HERE = Path(__file__).parent.parent
DETECTOR = {"type": "server_vad", "create_response": True}
SESSION = {"type": "realtime", "audio": {"input": {"turn_detection": DETECTOR, "transcription": None}}}
CREATE = {"type": "response.create", "event_id": "c"}


def guarded(**options: Any) -> ChainHarness:
    return ChainHarness({"input-guardrail": (InputGuardrail, {"words": ["secret"], **options})})


async def begin(chain: ChainHarness) -> dict[str, Any]:
    """The upstream greets and confirms; returns the audio input that it was told."""
    await chain.upstream.send({"type": "session.created", "event_id": "e", "session": SESSION})
    told: dict[str, Any] = {}
    while updates := chain.upstream.take():
        for each in updates:
            told |= each["session"]["audio"]["input"]
            update = {"type": "realtime", "audio": {"input": told}}
            await chain.upstream.send({"type": "session.updated", "event_id": "e", "session": update})
    chain.client.take()
    return told


async def speak(chain: ChainHarness, transcript: str | None, *, voice: bool = True) -> None:
    """The caller speaks a turn; a transcript of None fails."""
    for kind in ("speech_stopped", "committed")[not voice :]:
        await chain.upstream.send({"type": f"input_audio_buffer.{kind}", "item_id": "i", "event_id": "e"})
    kind = "conversation.item.input_audio_transcription"
    what = {"type": f"{kind}.failed"} if transcript is None else {"type": f"{kind}.completed"}
    await chain.upstream.send({**what, "item_id": "i", "transcript": transcript, "event_id": "e"})


async def type_(chain: ChainHarness, text: str, **item: Any) -> None:
    content = [{"type": "input_text", "text": text}]
    message = {"type": "message", "role": "user", "content": content, **item}
    await chain.client.send({"type": "conversation.item.create", "item": message})


def refused(sent: list[dict[str, Any]]) -> bool:
    """Whether what went up last is a refusal."""
    return (
        bool(sent)
        and sent[-1]["type"] == "response.create"
        and sent[-1].get("response", {}).get("input") == []
    )


@pytest.mark.parametrize(("said", "bad"), [("hello secretary", False), ("the SECRET!", True), ("", False)])
async def test_a_turn_waits_for_its_transcript(said: str, bad: bool) -> None:
    async with guarded() as chain:
        update = await begin(chain)
        assert update["turn_detection"]["create_response"] is False
        for kind in ("speech_stopped", "committed"):
            await chain.upstream.send({"type": f"input_audio_buffer.{kind}", "item_id": "i", "event_id": "e"})
        assert chain.upstream.take() == []
        kind = "conversation.item.input_audio_transcription.completed"
        await chain.upstream.send({"type": kind, "item_id": "i", "transcript": said, "event_id": "e"})
        sent = chain.upstream.take()
        assert [event["type"] for event in sent] == ["conversation.item.delete"] * bad + ["response.create"]
        assert refused(sent) == bad
        assert [f.code for f in chain.facts if isinstance(f, facts.Refused)] == ["input_refused"] * bad
        assert not chain.guard.failures
        chain.check_fates()


@pytest.mark.parametrize(
    ("text", "bad"), [("hello", False), ("my secret", True), ("x" * 9_990 + " secret", True)]
)
@pytest.mark.parametrize("item", [{}, {"id": "mine"}])
async def test_a_typed_message_and_the_clients_create(text: str, bad: bool, item: dict[str, str]) -> None:
    async with guarded() as chain:
        await begin(chain)
        await type_(chain, text, **item)
        await chain.client.send(CREATE)
        created, *sent = chain.upstream.take()
        assert refused(sent) == bad
        if bad:
            assert sent[0] == {
                **sent[0],
                "type": "conversation.item.delete",
                "item_id": created["item"]["id"],
            }
        else:
            assert sent == [CREATE]
        # the client hears the refusal, and is told of no error
        assert chain.client.take() == []
        # it was judged once; the next create passes at once
        await chain.client.send(CREATE)
        assert chain.upstream.take() == [CREATE]


async def test_what_is_typed_behind_a_create_is_not_what_that_one_answers() -> None:
    async with guarded() as chain:
        await begin(chain)
        for text, name in (("hello", "a"), ("secret", "b"), ("bye", "c")):
            content = [{"type": "input_text", "text": text}]
            item = {"type": "message", "role": "user", "content": content, "id": text}
            for event in (
                {"type": "conversation.item.create", "item": item},
                {"type": "response.create", "event_id": name},
            ):
                # Without waiting for what becomes of it.
                await chain.client.connection.send(msgspec.json.encode(event))
        await chain.settle()
        sent = chain.upstream.take()
        names = [e["item"]["id"] if "item" in e else e.get("item_id") or e["event_id"] for e in sent]
        assert [name for name in names if name in "abc"] == ["a", "b", "c"]
        assert names.index("hello") < names.index("a") < names.index("secret") < names.index("b")
        assert names.index("b") < names.index("bye")
        # The refused one is taken out before the model answers the next, on whichever side of "bye".
        assert names[-1] == "c"
        assert [name for name, each in zip(names, sent, strict=True) if refused([each])] == ["b"]
        assert [e["item_id"] for e in sent if e["type"] == "conversation.item.delete"] == ["secret"]


async def test_the_input_of_a_create_is_judged_too() -> None:
    async with guarded() as chain:
        await begin(chain)
        content = [{"type": "input_text", "text": "secret"}]
        wish = {"input": [{"type": "message", "role": "user", "content": content}]}
        await chain.client.send({**CREATE, "response": wish})
        assert refused(chain.upstream.take())


async def test_a_turn_the_client_commits_is_waited_for_from_its_commit() -> None:
    async with guarded() as chain:
        await begin(chain)
        await chain.client.send({"type": "input_audio_buffer.commit"})
        await chain.client.send(CREATE)
        assert chain.upstream.take_types() == ["input_audio_buffer.commit"]
        await speak(chain, "fine", voice=False)
        assert chain.upstream.take() == [CREATE]
        await chain.client.send({"type": "input_audio_buffer.commit"})
        await chain.client.send(CREATE)
        error = {"code": "input_audio_buffer_commit_empty"}
        await chain.upstream.send({"type": "error", "event_id": "e", "error": error})
        assert chain.upstream.take_types() == ["input_audio_buffer.commit", "response.create"]


@pytest.mark.parametrize("asked", [True, False])
async def test_transcription_is_asked_for_and_shown_to_who_asked(asked: bool) -> None:
    async with guarded(transcription_model="ours") as chain:
        update = await begin(chain)
        assert update["transcription"] == {"model": "ours"}
        if asked:
            mine = {"audio": {"input": {"transcription": {"model": "mine"}}}}
            await chain.client.send({"type": "session.update", "session": {"type": "realtime", **mine}})
            (sent,) = chain.upstream.take()
            assert sent["session"]["audio"]["input"]["transcription"] == {"model": "mine"}
        chain.client.take()
        await speak(chain, "fine")
        kinds = [kind for kind in chain.client.take_types() if "transcription" in kind]
        assert len(kinds) == asked


@pytest.mark.parametrize("policy", ["allow", "refuse"])
@pytest.mark.parametrize("fails", [True, False])
async def test_transcripts_that_do_not_come(policy: str, fails: bool, autojump_clock: Any) -> None:
    async with guarded(on_no_transcript=policy, transcript_timeout_s=2) as chain:
        await begin(chain)
        if fails:
            await speak(chain, None)
        else:
            await chain.client.send({"type": "input_audio_buffer.commit"})
            await chain.upstream.send(
                {"type": "input_audio_buffer.committed", "item_id": "i", "event_id": "e"}
            )
            await chain.client.send(CREATE)
            await trio.sleep(1.9)
            assert chain.upstream.take_types() == ["input_audio_buffer.commit"]
            await trio.sleep(0.2)
        assert refused(chain.upstream.take()) == (policy == "refuse")


async def test_pattern_keep_item_and_refusal() -> None:
    async with guarded(words=[], pattern=r"\d{4}", keep_item=True, refusal="Say no.") as chain:
        await begin(chain)
        await type_(chain, "1234")
        await chain.client.send(CREATE)
        sent = chain.upstream.take()
        assert [event["type"] for event in sent] == ["conversation.item.create", "response.create"]
        assert sent[-1]["response"]["instructions"] == "Say no."


async def test_whoever_asked_recognises_the_refusal() -> None:
    async with guarded() as chain:
        await begin(chain)
        await type_(chain, "secret")
        wish = {"metadata": {"mine": "1"}, "output_modalities": ["text"], "instructions": "x", "tools": []}
        await chain.client.send({**CREATE, "response": wish})
        create = chain.upstream.take()[-1]
        assert create["event_id"] == "c"
        assert create["response"].pop("instructions") != "x"
        expected = {
            "metadata": {"mine": "1"},
            "output_modalities": ["text"],
            "input": [],
            "tool_choice": "none",
        }
        assert create["response"] == expected


def answer(status: str, body: bytes) -> bytes:
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status.encode(), len(body), body)


ANSWERS = {
    "yes": answer("200 OK", b'{"allowed": true}'),
    "no": answer("200 OK", b'{"allowed": false}'),
    "broken": answer("500 No", b'{"allowed": true}'),
    "nonsense": answer("200 OK", b"["),
    "undecided": answer("200 OK", b'{"allowed": "perhaps"}'),
    "gone": b"",
    "hangs": None,
}


@asynccontextmanager
async def classifier(how: str) -> AsyncIterator[tuple[str, list[bytes]]]:
    """The URL of an HTTP server that answers so, and what it was asked."""
    asked: list[bytes] = []

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            data = b""
            while b"}" not in data:
                data += await stream.receive_some()
            asked.append(data)
            if (says := ANSWERS[how]) is None:
                await trio.sleep_forever()
            await stream.send_all(says)

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        yield f"http://127.0.0.1:{listener.socket.getsockname()[1]}/judge", asked
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("policy", ["allow", "refuse"])
@pytest.mark.parametrize("how", ANSWERS)
async def test_the_classifier(how: str, policy: str) -> None:
    # Waiting is on the wall clock: the socket is real.
    limit_s = 0.2 if how == "hangs" else 20
    async with classifier(how) as (url, asked):
        options = {"classifier_url": url, "classifier_timeout_s": limit_s, "on_classifier_failure": policy}
        gone = trio.Event()

        class Behind(Plugin[None, None]):
            @on_client("response.create")
            def see(self) -> None:
                gone.set()

        stages = {"input-guardrail": (InputGuardrail, options), "behind": Behind}
        async with ChainHarness(stages) as chain:
            await begin(chain)
            await type_(chain, "hello")
            await chain.client.send(CREATE)
            with trio.fail_after(10):
                await gone.wait()
            await chain.settle()
            assert refused(chain.upstream.take()) == {"yes": False, "no": True}.get(how, policy == "refuse")
            assert not chain.guard.failures
        assert [data.partition(b"\r\n\r\n")[2] for data in asked] == [b'{"text":"hello"}']


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pattern": "("}, "not a regular expression"),
        ({"classifier_url": "http://example.com/"}, "classifier_url: http is for this machine alone"),
        ({"classifier_url": "http://["}, "classifier_url: it is none"),
        ({"on_classifier_failure": "maybe"}, "Invalid enum value"),
        ({"transcript_timeout_s": 0}, "transcript_timeout_s"),
    ],
)
def test_mistakes_are_told(options: dict[str, Any], message: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=message):
        msgspec.convert(options, Config)


def test_every_option_is_in_the_sample_and_the_readme() -> None:
    text = (HERE / "sample.toml").read_text()
    everything = "\n".join(line.removeprefix("# ") if " = " in line else line for line in text.splitlines())
    table = tomllib.loads(everything)["plugins"]["input-guardrail"]
    assert msgspec.convert(table, Config) == Config()
    readme = (HERE / "README.md").read_text()
    for field in msgspec.structs.fields(Config):
        assert field.name in table
        assert f"| `{field.name}` | `{field.default!r}` |" in readme
