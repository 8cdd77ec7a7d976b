"""A session from its first to its last frame."""

from tests.daemon.kit import CREATED, client, in_process, running, scripted


async def test_the_upstream_greets_before_the_client_is_there(text):
    # The greeting comes in one packet with the 101, while the client still waits for its own.
    async with scripted() as model, in_process(text(model.url)) as gateway:
        for _ in range(20):
            async with client(gateway.address) as app:
                assert await app.receive() == CREATED


async def test_a_daemon_process(file):
    async with running(file(), "--sim", "--sim-pace", "0") as gateway, client(gateway.address) as app:
        assert (await app.event())["type"] == "session.created"
