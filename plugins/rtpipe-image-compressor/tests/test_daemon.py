"""The whole process, with a simulated model behind it, as OpenAI's Python client sees it."""

import asyncio
import contextlib
import re
import signal
import subprocess
import sys

from openai import AsyncOpenAI

from .making import photo, url, written

CONFIG = """
chain = ["image-compressor"]
state_dir = "{state}"

[[listen]]
address = "127.0.0.1:0"
open = true

[[upstream]]
name = "model"
kind = "sim"
url = "ws://127.0.0.1/v1/realtime"
default_model = "gpt-realtime-2.1"
"""
WAIT_S = 30


@contextlib.contextmanager
def gateway(folder):
    config = folder / "rtpipe.toml"
    config.write_text(CONFIG.format(state=folder / "state"))
    command = [sys.executable, "-m", "rtpipe.cli.main", "run", "--sim", "--sim-pace", "0", "--config"]
    with subprocess.Popen(  # noqa: S603
        [*command, str(config)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield re.search(r"ready at ws://(\S+?)/v1/realtime", process.stdout.readline())[1]
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=20)
    assert process.returncode == 0


async def until(connection, kind):
    seen = []
    while not seen or seen[-1].type != kind:
        seen.append(await connection.recv())
    return seen


async def show(connection, *image_urls):
    """Send images; what the client is told of its item."""
    content = [{"type": "input_image", "image_url": each} for each in image_urls]
    item = {"type": "message", "role": "user", "content": content}
    await connection.conversation.item.create(item=item)
    return (await until(connection, "conversation.item.added"))[-1].item


async def answer(connection):
    await connection.response.create()
    done = (await until(connection, "response.done"))[-1]
    return done.response.output[0].content[0].text, done.response.usage


async def talk(address):
    async with (
        AsyncOpenAI(base_url=f"http://{address}/v1", api_key="none") as openai,
        openai.realtime.connect(model="gpt-realtime-2.1") as connection,
    ):
        await connection.session.update(session={"type": "realtime", "output_modalities": ["text"]})
        picture = url(written(photo(1600, 1200), "WEBP", quality=80), "webp")
        echo = await show(connection, picture)
        assert echo.content[0].type == "input_image"
        assert echo.content[0].image_url is None
        said, usage = await answer(connection)
        assert "I see a JPEG image, 800 x 600" in said
        images = usage.input_token_details.image_tokens
        again = await show(connection, picture)
        assert again.content[0].type == "input_text"
        _, usage = await answer(connection)
        assert usage.input_token_details.image_tokens == images

        await connection.conversation.item.create(
            event_id="mine",
            item={
                "type": "message",
                "role": "user",
                "content": [{"type": "input_image", "image_url": "http://a/"}],
            },
        )
        error = (await until(connection, "error"))[-1].error
        assert (error.code, error.event_id) == ("image_url_not_allowed", "mine")
        said, _ = await answer(connection)
        assert said


def test_the_model_sees_a_smaller_image_once_and_the_client_none(tmp_path):
    with gateway(tmp_path) as address:
        asyncio.run(asyncio.wait_for(talk(address), WAIT_S))
