"""The plugin in a chain: what goes on, what waits, what is refused, what the client sees."""

import threading
import tomllib
from pathlib import Path

import msgspec
import pytest
import trio
from PIL import Image

import rtpipe_image_compressor.plugin
from rtpipe import facts
from rtpipe.testing import ChainHarness
from rtpipe_image_compressor import Config, ImageCompressor

from .making import item, opened, photo, url, written

JPEG = url(written(photo(1200, 900), "JPEG", quality=90), "jpeg")
SMALL = url(written(photo(60, 40), "JPEG", quality=90), "jpeg")
SAMPLE = Path(__file__).parents[1] / "sample.toml"


def chain(**options):
    return ChainHarness({"image-compressor": (ImageCompressor, options)})


async def until(condition):
    """Threads tell nobody when they are done, so this looks again and again."""
    with trio.fail_after(30):
        while not condition():  # noqa: ASYNC110
            await trio.sleep(0.005)


async def come(end, count=1):
    """What has come, once it is so many."""
    await until(lambda: len(end.payloads) >= count)
    return end.take()


def part_of(event, index=0):
    return event["item"]["content"][index]


async def sent(a_chain, *urls, **more):
    await a_chain.client.send(item(*urls, **more))
    return (await come(a_chain.upstream))[0]


async def refused(a_chain, *urls):
    await a_chain.client.send(item(*urls))
    (answer,) = await come(a_chain.client)
    assert a_chain.upstream.take() == []
    assert answer["error"]["event_id"] == "e1"
    return answer["error"]["code"]


@pytest.fixture
def stuck(monkeypatch):
    """The worker stands still until this is set; the number of pictures it has been given."""
    go_on, real = threading.Event(), rtpipe_image_compressor.plugin.compress
    go_on.given = 0

    def compress(data, config):
        go_on.given += 1
        assert go_on.wait(30)
        return real(data, config)

    monkeypatch.setattr(rtpipe_image_compressor.plugin, "compress", compress)
    yield go_on
    go_on.set()


# --- what goes on -------------------------------------------------------------------------------------------


async def test_the_image_is_smaller_and_the_rest_as_it_was():
    async with chain() as one:
        event = item(JPEG, previous_item_id="root")
        event["item"]["content"].insert(0, {"type": "input_text", "text": "What is this?"})
        await one.client.send(event)
        (got,) = await come(one.upstream)
        image = opened(part_of(got, 1).pop("image_url"))
        assert image.size == (800, 600)
        event["item"]["content"][1].pop("image_url")
        assert got == event
        (fact,) = [each for each in one.facts if isinstance(each, facts.ImageCompressed)]
        assert (fact.outcome, fact.pixels_before, fact.pixels_after) == ("compressed", 1_080_000, 480_000)
        assert fact.bytes_after < fact.bytes_before
        assert (fact.estimated_tokens_before, fact.estimated_tokens_after) == (765, 765)
        one.check_fates()


async def test_images_in_the_input_of_a_response_too():
    async with chain() as one:
        message = item(JPEG)["item"]
        await one.client.send({"type": "response.create", "response": {"input": [message]}})
        (got,) = await come(one.upstream)
        assert opened(got["response"]["input"][0]["content"][0]["image_url"]).size == (800, 600)


async def test_what_has_no_image_passes_to_the_byte():
    async with chain() as one:
        text = b'{ "type":"conversation.item.create", "item":{"type":"message","role":"user","content":[]}}'
        await one.client.send(text)
        assert one.upstream.payloads == [text]


async def test_what_cannot_be_smaller_goes_as_it_came_to_the_byte():
    plain = url(written(Image.new("RGB", (30, 30), "red"), "PNG"))
    async with chain() as one:
        payload = msgspec.json.format(msgspec.json.encode(item(plain)), indent=1)
        await one.client.send(payload)
        await until(lambda: one.upstream.payloads)
        assert one.upstream.payloads == [payload]
        (fact,) = [each for each in one.facts if isinstance(each, facts.ImageCompressed)]
        assert fact.outcome == "kept"


async def test_max_edge_px():
    async with chain(max_edge_px=100) as one:
        assert opened(part_of(await sent(one, JPEG))["image_url"]).size == (100, 75)


async def test_quality():
    async with chain(quality=10) as coarse, chain() as fine:
        assert len(part_of(await sent(coarse, JPEG))["image_url"]) < len(
            part_of(await sent(fine, JPEG))["image_url"]
        )


async def test_prefer():
    async with chain(prefer="screen") as one:
        assert opened(part_of(await sent(one, JPEG))["image_url"]).format == "PNG"


async def test_detail():
    async with chain(detail="low") as one:
        assert part_of(await sent(one, JPEG))["detail"] == "low"
    async with chain() as one:
        assert "detail" not in part_of(await sent(one, JPEG))


# --- what is in the conversation already --------------------------------------------------------------------


async def echo(one, event, kind="conversation.item.added", item_id="item_1"):
    await one.upstream.send({"type": kind, "event_id": "s", "item": {**event["item"], "id": item_id}})


async def test_an_image_that_the_model_has_is_sent_once():
    async with chain() as one:
        await echo(one, await sent(one, SMALL))
        await echo(one, await sent(one, JPEG), item_id="item_2")
        again = part_of(await sent(one, JPEG))
        assert again == {
            "type": "input_text",
            "text": "(The same image once more: image 2 of this conversation, counted from the start.)",
        }
        fact = [each for each in one.facts if isinstance(each, facts.ImageCompressed)][-1]
        assert (fact.outcome, fact.pixels_before, fact.pixels_after) == ("repeated", 1_080_000, 0)


@pytest.mark.parametrize(
    "what",
    ["refused", "deleted", "cut", "replaced", "in a response", "another detail", "repeat = send"],
)
async def test_it_is_sent_again_where_the_model_may_not_have_it(what):
    async with chain(repeat="send" if what == "repeat = send" else "once") as one:
        event = await sent(one, JPEG)
        if what != "refused":
            await echo(one, event)
        if what == "deleted":
            await one.upstream.send(
                {"type": "conversation.item.deleted", "event_id": "d", "item_id": "item_1"}
            )
        if what == "cut":
            for tokens in (1000, 600):
                usage = {"input_tokens": tokens, "input_token_details": {"text_tokens": tokens}}
                done = {"id": "r", "status": "completed", "conversation_id": "c", "usage": usage}
                await one.upstream.send({"type": "response.done", "event_id": "x", "response": done})
        if what == "replaced":
            await one.replace_upstream()
        if what == "in a response":
            response = {"conversation": "none", "input": [item(JPEG)["item"]]}
            await one.client.send({"type": "response.create", "response": response})
            (got,) = await come(one.upstream)
            assert got["response"]["input"][0]["content"][0]["type"] == "input_image"
            return
        again = item(JPEG)
        if what == "another detail":
            part_of(again)["detail"] = "low"
        await one.client.send(again)
        (got,) = await come(one.upstream)
        assert part_of(got)["type"] == "input_image"


async def test_a_response_out_of_band_says_nothing_of_the_conversation():
    async with chain() as one:
        await echo(one, await sent(one, JPEG))
        for tokens, conversation in ((1000, "c"), (10, None)):
            usage = {"input_tokens": tokens, "input_token_details": {"text_tokens": tokens}}
            done = {"id": "r", "status": "completed", "conversation_id": conversation, "usage": usage}
            await one.upstream.send({"type": "response.done", "event_id": "x", "response": done})
        assert part_of(await sent(one, JPEG))["type"] == "input_text"


@pytest.mark.parametrize(
    "kind", ["conversation.item.added", "conversation.item.done", "conversation.item.created"]
)
async def test_the_client_does_not_get_the_image_back(kind):
    async with chain() as one:
        await echo(one, item(JPEG), kind)
        (got,) = one.client.take()
        assert part_of(got) == {"type": "input_image"}
        assert got["item"]["id"] == "item_1"


async def test_but_it_does_when_it_asks_for_it():
    async with chain() as one:
        await echo(one, item(SMALL), "conversation.item.retrieved")
        assert part_of(one.client.take()[0])["image_url"] == SMALL


# --- what waits ---------------------------------------------------------------------------------------------


async def test_audio_and_control_pass_an_image_that_waits_and_the_conversation_does_not(stuck):
    async with chain() as one:
        await one.client.send(item(JPEG))
        append, cancel = {"type": "input_audio_buffer.append", "audio": "AAAA"}, {"type": "response.cancel"}
        for event in (append, cancel, {"type": "response.create"}, {"type": "session.update", "session": {}}):
            await one.client.send(event)
        assert one.upstream.take_types() == ["input_audio_buffer.append", "response.cancel"]
        stuck.set()
        got = await come(one.upstream, 3)
        assert [event["type"] for event in got] == [
            "conversation.item.create",
            "response.create",
            "session.update",
        ]
        one.check_fates()


async def test_one_worker_does_one_image_at_a_time_for_all(stuck):
    async with chain() as one:
        for _ in range(3):
            await one.client.send(item(JPEG))
        await until(lambda: stuck.given)
        await one.settle()
        assert stuck.given == 1
        stuck.set()
        assert len(await come(one.upstream, 3)) == 3


async def test_several_large_images_wait_within_the_limits_that_nobody_set(stuck):
    noise = url(written(Image.effect_noise((2000, 1500), 90), "PNG"))
    assert len(noise) > 3_000_000
    async with chain() as one:
        for number in range(4):
            await one.client.send(item(noise, event_id=f"e{number}"))
        stuck.set()
        assert len(await come(one.upstream, 4)) == 4
        assert one.client.take() == []


async def test_max_waiting(stuck):
    async with chain(max_waiting=2) as one:
        await one.client.send(item(SMALL, SMALL))
        await one.client.send(item(SMALL))
        (answer,) = one.client.take()
        assert answer["error"]["code"] == "too_many_images_waiting"
        stuck.set()
        await come(one.upstream)
        await sent(one, SMALL)  # there is room again


async def test_timeout_s(stuck, autojump_clock):
    async with chain(timeout_s=2) as one:
        await one.client.send(item(JPEG))
        await trio.sleep(3)
        (answer,) = one.client.take()
        assert (answer["error"]["code"], answer["error"]["event_id"]) == ("image_timed_out", "e1")
        stuck.set()


async def test_a_session_that_ends_does_not_wait_for_the_worker(stuck):
    async with chain() as one:
        await one.client.send(item(JPEG))
    assert not stuck.is_set()


async def test_a_failing_worker_refuses_the_image_and_frees_its_place(monkeypatch):
    def broken(data, config):
        raise MemoryError

    monkeypatch.setattr(rtpipe_image_compressor.plugin, "compress", broken)
    async with chain(max_waiting=1) as one:
        assert await refused(one, SMALL) == "event_dropped"
        assert await refused(one, SMALL) == "event_dropped"
        assert one.guard.failures


# --- what is refused ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image_url", "code"),
    [
        (None, "invalid_image_url"),
        (7, "invalid_image_url"),
        ("", "image_url_not_allowed"),
        ("data:,x", "invalid_image_url"),
        ("data:image/png;base64,%%%", "invalid_image_url"),
        ("data:image/png;base64,", "image_format_unsupported"),
        (url(b"%PDF-1.7"), "image_format_unsupported"),
        (url(written(photo(99, 99), "PNG")[:-500]), "image_unreadable"),
        ("https://cdn.example/a.png", "image_url_not_allowed"),
        ("http://169.254.169.254/latest", "image_url_not_allowed"),
        ("file:///etc/passwd", "image_url_not_allowed"),
    ],
)
async def test_each_has_its_one_answer(image_url, code):
    async with chain() as one:
        assert await refused(one, image_url) == code
        one.check_fates()
        assert not one.guard.failures


async def test_one_bad_image_refuses_the_event_with_the_good_one():
    async with chain() as one:
        assert await refused(one, SMALL, url(b"nothing")) == "image_format_unsupported"


async def test_max_bytes():
    twenty_megabytes = "data:image/png;base64," + "A" * (20_000_000 * 4 // 3)
    async with chain() as one:
        assert await refused(one, twenty_megabytes) == "image_too_large"
    async with chain(max_bytes=1024) as one:
        assert await refused(one, JPEG) == "image_too_large"


async def test_max_pixels():
    async with chain(max_pixels=1_000_000) as one:
        assert await refused(one, JPEG) == "image_too_many_pixels"


async def test_the_wrong_media_type_is_corrected():
    async with chain() as one:
        got = await sent(one, JPEG.replace("image/jpeg", "image/png"))
        assert opened(part_of(got)["image_url"]).format == "JPEG"


# --- options ------------------------------------------------------------------------------------------------


def test_the_sample_has_every_option_with_its_default():
    text = SAMPLE.read_text().replace('# fetch_from = ["cdn.example"]', "# fetch_from = []")
    text = "\n".join(line.removeprefix("# ") if " = " in line else line for line in text.splitlines())
    given = tomllib.loads(text)["plugins"]["image-compressor"]
    assert set(given) == set(Config.__struct_fields__)
    assert msgspec.convert(given, Config) == Config()


@pytest.mark.parametrize("host", ["https://cdn.example", "cdn.example/", "*.example", "", "a b"])
def test_a_host_is_a_host(host):
    with pytest.raises(msgspec.ValidationError, match="fetch_from"):
        msgspec.convert({"fetch_from": [host]}, Config)
