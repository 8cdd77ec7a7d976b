"""Sessions that outlive the daemon: killed, told to stop, and what the disk says of them."""

import hashlib
import secrets
import signal
import tempfile
from pathlib import Path

import pytest
import trio

from rtpipe.api.principal import Principal
from rtpipe.api.secret import Secret
from rtpipe.cli.main import main
from rtpipe.daemon.config_session import Persist, PersistKey
from rtpipe.daemon.keeper import Head
from rtpipe.daemon.persistence import NAMESPACE, Persistence
from rtpipe.daemon.sealing import Sealer
from rtpipe.store import Store
from tests.daemon.kit import (
    PATH,
    Process,
    bearer,
    client,
    config,
    running,
    simulated,
    started,
)
from tests.daemon.lines import ask, asked
from tests.daemon.wire import WAIT_S, WebSocket

NAME = "a-session-of-my-own"
NAMED = f"{PATH}?rtpipe_session={NAME}"
MARK = "the-caller-said-this-word"
PLACE = ("app", "", hashlib.sha256(NAME.encode()).digest())
SECRET = "k" * 40
VARIABLE = "TEST_SESSION_KEY"
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def persistent(*keys: str, retention_h: float = 24, more: str = "") -> str:
    """Callers' sessions are written down; *keys* are names of variables, the first encrypts."""
    listed = ", ".join(
        f'{{ id = "{key.lower()}", secret = {{ env = "{key}" }} }}' for key in keys or (VARIABLE,)
    )
    return f"persist = true\n[persist]\nkeys = [{listed}]\nretention_h = {retention_h}\n{more}"


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.setenv(VARIABLE, SECRET)
    return {"OTHER": "o" * 40}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "rtpipe.toml"


def write(file: Path, text: str) -> None:
    file.write_text(text)


async def say(app: WebSocket, words: str, *parts: dict) -> str:
    """Say something and hear the answer; returns the id of the item."""
    item_id = f"item_{secrets.token_hex(4)}"
    content = [{"type": "input_text", "text": words}, *parts]
    item = {"id": item_id, "type": "message", "role": "user", "content": content}
    await app.tell("conversation.item.create", item=item)
    await app.tell("response.create", response={"output_modalities": ["text"]})
    answer = (await app.until("response.done"))[-1]["response"]["output"][0]["content"][0]["text"]
    assert answer.startswith(f"You said: {words}"), answer
    return item_id


async def remembered(app: WebSocket, item_id: str) -> str:
    """What the model knows under this id."""
    await app.tell("conversation.item.retrieve", item_id=item_id)
    event = (await app.until("conversation.item.retrieved"))[-1]
    return event["item"]["content"][0]["text"]


async def configured(app: WebSocket, instructions: str) -> None:
    await app.tell("session.update", session={"type": "realtime", "instructions": instructions})
    await app.until("session.updated")


async def kept(state: Path, *, items: int) -> Head:
    """What is written of the session, as soon as so many items are, and the last of them has its words."""
    async with await Store.open(state / "store.sqlite3") as store:
        records = store.namespace(NAMESPACE)
        sealer = Sealer([PersistKey(id=VARIABLE.lower(), secret=Secret(env=VARIABLE))])
        persistence = Persistence(records, Persist, lambda: sealer, lambda _: None)
        with trio.fail_after(WAIT_S):
            while True:
                keeper = await persistence.keeper(Principal(id="app", persist=True), PLACE)
                assert keeper is not None
                head = await keeper.find()
                keeper.leave()
                if head is not None and len(head.session.items) == items:
                    last = head.session.items[-1].item
                    if last["content"] and last["content"][0].get("text"):
                        return head
                await trio.sleep(0.01)


async def next_one(app: WebSocket) -> dict:
    created = await app.event()
    assert created["type"] == "session.created"
    return created["session"]


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
async def test_a_session_that_the_end_of_the_daemon_cut_off_goes_on_in_the_next(
    file: Path, environment: dict[str, str], end: signal.Signals
) -> None:
    state = file.parent / "state"
    picture = {"type": "input_image", "image_url": f"data:image/png;base64,{PNG}"}
    async with simulated() as url:
        write(file, config(state, url, more=persistent()))
        async with started(file, environment=environment) as gateway:
            await gateway.said(" with chain ")
            async with client(gateway.address, NAMED) as app:
                await configured(app, "Be terse.")
                first = await say(app, MARK)
                second = await say(app, "look", picture)
                if end == signal.SIGKILL:
                    await kept(state, items=4)
                gateway.signal(end)
                if end == signal.SIGTERM:
                    assert (await app.ended())[1].code == 1012
                await gateway.exited()
        session_id = (await kept(state, items=4)).session.session
        async with running(file, environment=environment) as gateway:
            async with client(gateway.address, NAMED) as app:
                assert (await next_one(app))["instructions"] == "Be terse."
                assert await remembered(app, first) == MARK
                assert await remembered(app, second) == "look"
                third = await say(app, "and now")
                await gateway.said(f"session {session_id}: restored")
                await app.reset()
            async with client(gateway.address, NAMED) as app:  # in memory, as ever
                await next_one(app)
                assert await remembered(app, third) == "and now"
                await app.close(1000, "")
            await gateway.said(f"session {session_id} closed by client")
            async with client(gateway.address, NAMED) as app:  # who has said goodbye begins anew
                assert (await next_one(app)).get("instructions") != "Be terse."
    everything = b"".join(each.read_bytes() for each in state.iterdir() if each.is_file())
    assert MARK.encode() not in everything
    assert NAME.encode() not in everything
    assert MARK not in gateway.err


@pytest.mark.parametrize("is_there", [True, False])
async def test_an_answer_that_the_end_of_the_daemon_cuts_is_ended_for_its_client(
    file: Path, environment: dict[str, str], is_there: bool
) -> None:
    """Once: before it hears 1012, or when it is back."""
    async with simulated(pace=1) as url:
        write(
            file, config(file.parent / "state", url, more=persistent(more="[limits]\ndrain_timeout_s = 0\n"))
        )
        async with (
            running(file, environment=environment) as gateway,
            client(gateway.address, NAMED) as app,
        ):
            await next_one(app)
            content = [{"type": "input_text", "text": "a word " * 100}]
            await app.tell(
                "conversation.item.create", item={"type": "message", "role": "user", "content": content}
            )
            await app.tell("response.create")
            seen = await app.until("response.created")
            if not is_there:
                await app.reset()
                await gateway.said("parked")
            gateway.signal()
            if is_there:
                more, ended = await app.ended()
                assert ended.code == 1012
                seen += more
        async with (
            running(file, environment=environment) as gateway,
            client(gateway.address, f"{NAMED}&rtpipe_after={seen[-1]['event_id']}") as app,
        ):
            await next_one(app)
            await app.tell("conversation.item.retrieve", item_id="none", event_id="mine")
            seen += await app.until("error")
    (done,) = (event for event in seen if event["type"] == "response.done")
    assert done["response"]["status"] == "failed"


async def test_whoever_has_another_key_or_names_no_session_finds_nothing(
    file: Path, environment: dict[str, str]
) -> None:
    async with simulated() as url:
        other = config(file.parent, url, key="another-key").partition("[[plugins.auth.keys]]")[2]
        other = "[[plugins.auth.keys]]" + other.partition("[limits]")[0].replace('"app"', '"other"')
        more = persistent() + other.rstrip() + "\npersist = true\n"
        write(file, config(file.parent / "state", url, more=more))
        async with (
            running(file, environment=environment) as gateway,
            client(gateway.address, NAMED) as app,
        ):
            item = await say(app, "mine")
            gateway.signal()
            await app.ended()
        async with running(file, environment=environment) as gateway:
            for target, key in ((NAMED, "another-key"), (PATH, None)):
                async with client(gateway.address, target, bearer(key) if key else None) as app:
                    await next_one(app)
                    await app.tell("conversation.item.retrieve", item_id=item)
                    await app.until("error")
            async with client(gateway.address, NAMED) as app:
                await next_one(app)
                assert await remembered(app, item) == "mine"


async def test_keys_are_rotated_and_one_that_is_gone_costs_the_session_and_no_more(
    file: Path, environment: dict[str, str]
) -> None:
    state = file.parent / "state"
    async with simulated() as url:

        async def round_with(*keys: str, ask: str | None) -> tuple[str, Process]:
            write(file, config(state, url, more=persistent(*keys)))
            async with (
                running(file, environment=environment) as gateway,
                client(gateway.address, NAMED) as app,
            ):
                await next_one(app)
                if ask is not None:
                    assert await remembered(app, ask) == "hello"
                item = await say(app, "hello")
                gateway.signal()
                await app.ended()
            return item, gateway

        item, _ = await round_with(VARIABLE, ask=None)
        item, _ = await round_with("OTHER", VARIABLE, ask=item)
        item, _ = await round_with("OTHER", ask=item)  # it was written with the new one meanwhile
        _, gateway = await round_with(VARIABLE, ask=None)
        assert "cannot be used: its key 'other' is not among persist.keys; its client gets a new one" in (
            gateway.err
        )


async def test_what_is_forgotten_is_not_found_again(
    file: Path, environment: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    state = file.parent / "state"
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # a socket's path must be short
        admin = Path(folder) / "admin.sock"
        async with simulated() as url:
            write(file, config(state, url, more=persistent(more=f'[admin]\nsocket = "{admin}"\n')))
            async with (
                running(file, environment=environment) as gateway,
                client(gateway.address, NAMED) as app,
            ):
                item = await say(app, "hello")
                gateway.signal()
                await app.ended()
            session_id = (await kept(state, items=2)).session.session
            async with running(file, environment=environment) as gateway:
                target = f"/forget?name={session_id}"
                assert await asked(admin, target, "POST") == {"forgotten": ["what was written of 1 session"]}
                assert (await ask(admin, target, "POST")).status == 404
                assert (await ask(admin, "/forget", "POST")).status == 422
                async with client(gateway.address, NAMED) as app:
                    await next_one(app)
                    await app.tell("conversation.item.retrieve", item_id=item)
                    await app.until("error")
                    # One in service is not written any more, and goes on.
                    await say(app, "hello again")
                    await kept(state, items=2)
                    code = await trio.to_thread.run_sync(main, ["forget", "app", "--socket", str(admin)])
                    assert (code, capsys.readouterr().out) == (
                        0,
                        "forgotten: what was written of 1 session\n",
                    )
                    await say(app, "still there")
                    gateway.signal()
                    await app.ended()
    async with await Store.open(state / "store.sqlite3") as store:
        assert await store.namespace(NAMESPACE).scan("") == {}
