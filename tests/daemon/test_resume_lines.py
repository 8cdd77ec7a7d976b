"""A session that is taken up again over JSON lines, and by clients of both kinds."""

import pytest
import trio

from tests.daemon.kit import PATH, bearer, client, running, simulated
from tests.daemon.lines import Lines, asked, reloadable, speaking
from tests.daemon.test_survival import answer_of, turn
from tests.daemon.wire import WAIT_S, knock

KEY = "a-session-of-my-own"
NAMED = f"{PATH}?rtpipe_session={KEY}"
REFUSES = '[session]\nsecond_client = "refuse"\n'


@pytest.fixture
def both(place, file):
    """Write a configuration with a WebSocket and, at *place*, JSON lines, open to everybody."""

    def write(url, more=""):
        unix = f'[[listen]]\naddress = "unix:{place}"\nopen = true\n'
        return file(url, chain=[], listen="open = true", more=unix + more)

    return write


async def begun(lines: Lines) -> str:
    """The id of the session, whose greeting is behind us."""
    welcome = await lines.next()
    assert welcome["type"] == "rtpipe.welcome", welcome
    assert (await lines.next())["type"] == "session.created"
    return welcome["session"]


async def said(lines: Lines, words: str) -> list[dict]:
    content = [{"type": "input_text", "text": words}]
    await lines.tell("conversation.item.create", item={"type": "message", "role": "user", "content": content})
    await lines.tell("response.create", response={"output_modalities": ["text"]})
    return await lines.until("response.done")


async def parked(gateway) -> None:
    """Until the client's leg of the one session is empty."""
    (session,) = gateway.process.sessions.values()
    with trio.fail_after(WAIT_S):
        if (connection := session.client.connection) is not None:
            await session.parking.left(connection)


async def test_who_vanishes_finds_its_session_by_its_key(both, place):
    async with simulated() as url, reloadable(both(url)) as gateway:
        async with speaking(place, session=KEY) as lines:
            session = await begun(lines)
            assert answer_of(await said(lines, "one")) == "You said: one"
        await parked(gateway)
        async with speaking(place, session=KEY) as lines:
            assert await begun(lines) == session
            assert answer_of(await said(lines, "two")) == "You said: two"
        assert len(gateway.process.sessions[session].upstream_edge.carried.log) == 4


async def test_with_its_last_event_it_gets_exactly_the_rest(both, place):
    async with simulated() as url, reloadable(both(url)) as gateway:
        async with speaking(place, session=KEY) as lines:
            session = await begun(lines)
            events = await said(lines, "remember me")
        await parked(gateway)
        async with speaking(place, session=KEY, after=events[3]["event_id"]) as lines:
            assert await begun(lines) == session
            assert [await lines.next() for _ in events[4:]] == events[4:]


@pytest.mark.parametrize("goodbye", ["half-close", "rtpipe.closed"])
async def test_who_says_goodbye_ends_its_session(both, place, goodbye):
    async with simulated() as url, reloadable(both(url)) as gateway:
        async with speaking(place, session=KEY) as lines:
            await begun(lines)
            if goodbye == "half-close":
                await lines.stream.send_eof()
            else:
                await lines.tell("rtpipe.closed", code=1000)
            assert (await lines.rest())[-1] == {"type": "rtpipe.closed", "code": 1000, "reason": ""}
        with trio.fail_after(WAIT_S):
            await gateway.process.empty()


async def test_a_half_close_still_lets_the_answer_end_after_a_resume(both, place):
    async with simulated() as url, reloadable(both(url)) as gateway:
        async with speaking(place, session=KEY) as lines:
            await begun(lines)
        await parked(gateway)
        async with speaking(place, session=KEY) as lines:
            await begun(lines)
            await lines.tell("response.create", response={"output_modalities": ["text"]})
            await lines.stream.send_eof()
            rest = await lines.rest()
            assert "response.done" in [each["type"] for each in rest]
            assert (rest[-1]["type"], rest[-1]["code"]) == ("rtpipe.closed", 1000)


async def test_a_session_that_is_not_named_ends_with_its_socket(both, place):
    async with simulated() as url, reloadable(both(url)) as gateway:
        async with speaking(place) as lines:
            await begun(lines)
        with trio.fail_after(WAIT_S):
            await gateway.process.empty()


async def test_a_short_key_is_none(both, place):
    async with simulated() as url, reloadable(both(url)), speaking(place, session="short") as lines:
        (answer,) = await lines.rest()
        assert (answer["status"], answer["code"]) == (400, "invalid_session_key")
        assert "short" not in str(answer)


async def test_the_key_stands_in_no_log_line(file, place):
    path = file(chain=[], listen="open = true", more=f'[[listen]]\naddress = "unix:{place}"\nopen = true\n')
    path.write_text(path.read_text() + '\n[log]\nlevel = "debug"\n')
    async with running(path, "--sim", "--sim-pace", "0") as gateway:
        for _ in range(2):
            async with speaking(place, session=KEY, after="event_nobody_knows") as lines:
                await begun(lines)
        await gateway.said("client leg resumed")
    assert KEY not in gateway.out + gateway.err


# --- a second client, of either kind


async def test_a_second_one_of_the_other_kind_takes_the_place_of_the_first(both, place):
    async with simulated() as url, reloadable(both(url)) as gateway, speaking(place, session=KEY) as lines:
        session = await begun(lines)
        async with client(gateway.address, NAMED) as app:
            assert (await app.event())["type"] == "session.created"
            reason = "replaced by another connection"
            assert await lines.rest() == [{"type": "rtpipe.closed", "code": 1000, "reason": reason}]
            assert answer_of(await turn(app, "mine now")) == "You said: mine now"
            async with speaking(place, session=KEY) as third:
                assert await begun(third) == session
                _, end = await app.ended()
                assert (end.code, end.reason) == (1000, reason)
                assert answer_of(await said(third, "and now mine")) == "You said: and now mine"


async def test_a_second_one_of_either_kind_can_be_refused(both, place):
    async with simulated() as url, reloadable(both(url, more=REFUSES)) as gateway:
        async with speaking(place, session=KEY) as lines:
            await begun(lines)
            assert (await knock(gateway.address, NAMED, bearer())).status == 409
            async with speaking(place, session=KEY) as second:
                (answer,) = await second.rest()
                assert (answer["status"], answer["code"]) == (409, "session_in_use")
            assert answer_of(await said(lines, "still mine")) == "You said: still mine"
        await parked(gateway)
        async with client(gateway.address, NAMED) as app:
            await app.event()
            async with speaking(place, session=KEY) as second:
                assert (await second.rest())[0]["status"] == 409


async def test_one_that_took_it_up_again_hears_how_the_session_ends(both, place):
    async with simulated() as url, reloadable(both(url)) as gateway:
        async with speaking(place, session=KEY) as lines:
            session = await begun(lines)
        await parked(gateway)
        async with speaking(place, session=KEY) as lines:
            await begun(lines)
            upstream = gateway.process.sessions[session].upstream.connection
            gateway.process.sessions[session].replacement.redial = None
            upstream.abort("lost")
            rest = await lines.rest()
            assert rest[-2]["error"]["code"] == "upstream_connection_lost"
            assert rest[-1]["code"] == 1011


async def test_what_was_lost_is_shown_and_outlives_the_session(file, place):
    admin = place.with_name("admin.sock")
    more = f'[[listen]]\naddress = "unix:{place}"\nopen = true\n[admin]\nsocket = "{admin}"\n'
    configuration = file(chain=[], listen="open = true", more=more)
    async with running(configuration, "--sim", "--sim-pace", "0") as gateway:
        async with speaking(place, session=KEY) as lines:
            session = await begun(lines)
        await gateway.said("client leg parked")
        async with speaking(place, session=KEY, after="event_nobody_knows") as lines:
            await begun(lines)
            await gateway.said("client leg resumed")
            (loss,) = (await asked(admin, f"/sessions/{session}"))["losses"]
            assert (loss["leg"], loss["what"]) == ("client", "1 position that is not known any more")
            await lines.tell("rtpipe.closed")
            await lines.rest()
        await gateway.said("; lost: client: 1 position that is not known any more")
