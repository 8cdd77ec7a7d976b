"""Sessions over memory legs: what passes, what ends, what is told."""

from rtpipe import Close, Drop, Event, Plugin, Reply, on_client, on_server, reject
from rtpipe.testing import ChainHarness


async def test_an_empty_chain_passes_everything_byte_for_byte():
    texts = [
        b'{"type" : "response.create",  "response":{"x":1.0e2}}',
        b'{"event_id":"e","type":"unknown.thing","\\u0061":[1,2,{"b":null}]}',
        b'{"type":"input_audio_buffer.append","audio":"AAAA"}',
    ]
    async with ChainHarness({}) as chain:
        for text in texts:
            await chain.client.send(text)
            assert chain.upstream.payloads.pop() == text
            await chain.upstream.send(text)
            assert chain.client.payloads.pop() == text
        chain.check_fates()


class Verdicts(Plugin[None, None]):
    @on_client("response.create")
    async def replace(self, session, event):
        return event.replace({**event.data, "seen": True})

    @on_client("response.cancel")
    def drop(self, session, event):
        return Drop("not now")

    @on_client("input_audio_buffer.commit")
    def turn_round(self, session, event):
        return Reply(Event({"type": "input_audio_buffer.cleared"}))

    @on_client("conversation.item.delete")
    def refuse(self, session, event):
        return reject(event, "no_deleting", "Items stay.")

    @on_client("input_audio_buffer.clear")
    def expand(self, session, event):
        return [event.replace({"type": "one"}), event.replace({"type": "two"})]

    @on_server("error")
    def close(self, session, event):
        return Close(4001, "enough")


async def test_verdicts():
    async with ChainHarness({"v": Verdicts}) as chain:
        await chain.client.send({"type": "response.create", "event_id": "a"})
        assert chain.upstream.take() == [{"type": "response.create", "event_id": "a", "seen": True}]
        await chain.client.send({"type": "response.cancel", "event_id": "b"})
        (error,) = chain.client.take()
        assert error["error"]["event_id"] == "b"
        assert error["error"]["message"] == "not now"
        await chain.client.send({"type": "input_audio_buffer.commit"})
        (cleared,) = chain.client.take()
        assert cleared["type"] == "input_audio_buffer.cleared"
        assert cleared["event_id"].startswith("rtp_")
        await chain.client.send({"type": "conversation.item.delete", "item_id": "i", "event_id": "c"})
        (error,) = chain.client.take()
        assert (error["error"]["code"], error["error"]["event_id"]) == ("no_deleting", "c")
        await chain.client.send({"type": "input_audio_buffer.clear"})
        assert chain.upstream.take_types() == ["one", "two"]
        chain.check_fates()
        for kind in ("response.created", "response.done"):
            await chain.upstream.send({"type": kind, "response": {"id": "r"}})
        await chain.upstream.send({"type": "error", "error": {}})
        assert chain.client.closing.code == 4001
        assert chain.upstream.closing.code == 1000


async def test_malformed_client_events_get_an_error_and_the_session_lives():
    async with ChainHarness({"v": Verdicts}) as chain:
        for text in (b"nonsense", b"[1]", b"{}", b'{"type":7}', b'{"type":"a","type":"b"}', b"[" * 200_000):
            await chain.client.send(text)
            (error,) = chain.client.take()
            assert error["type"] == "error"
        await chain.client.send(b'{"type":"response.create","response":{"x":1,"x":2}, "event_id":"dup"}')
        (error,) = chain.client.take()
        assert (error["error"]["code"], error["error"]["event_id"]) == ("duplicate_key", "dup")
        assert chain.upstream.payloads == []
        await chain.client.send({"type": "response.create"})
        assert chain.upstream.take() == [{"type": "response.create", "seen": True}]


async def test_upstream_cut_is_told_and_never_called_normal():
    async with ChainHarness({}) as chain:
        chain.upstream.connection.abort()
        await chain.settle()
        (error,) = chain.client.take()
        assert error["error"]["code"] == "upstream_connection_lost"
        assert chain.client.closing.code == 1011


async def test_upstream_close_codes_reach_the_client():
    for code in (1001, 1008, 1011, 1012, 3000, 4000):
        async with ChainHarness({}) as chain:
            await chain.upstream.connection.close(code, "why")
            await chain.settle()
            assert (chain.client.closing.code, chain.client.closing.reason) == (code, "why")
            assert chain.client.payloads == []
