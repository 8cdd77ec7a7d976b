"""Certificates that are replaced under a running daemon, and a configuration that is watched."""

import signal
import ssl
from urllib.parse import urlsplit

import pytest
import trio

from rtpipe.transport.contexts import client_context, server_context
from tests.daemon.kit import CREATED, bearer, client, in_process, listening, refused, running, scripted
from tests.daemon.test_tls import port_of, tls, with_ca
from tests.daemon.wire import WebSocket, frame, read_head, switch, upgrade
from tests.transport import certificates


def shown(process, pair):
    """The certificate that is shown."""
    return ssl.get_server_certificate(
        ("127.0.0.1", port_of(process)), ca_certs=str(pair.authority), timeout=10
    )


@pytest.mark.parametrize("how", ["signal", "watch"])
async def test_a_new_certificate_is_shown_and_nobody_is_cut_off(file, tmp_path, how):
    pair = certificates.make(tmp_path / "tls", "127.0.0.1")
    before = pair.certificate.read_text()
    async with scripted() as model:
        path = file(model.url, more=f'[[listen]]\naddress = "127.0.0.1:0"\nname = "s"\n{tls(*pair[:2])}')
        path.write_text(("watch = true\n" if how == "watch" else "") + path.read_text())
        async with running(path) as process, client(process.address) as app:
            upstream = await model.next()
            await process.said("\n")
            assert await trio.to_thread.run_sync(shown, process, pair) == before
            certificates.make(tmp_path / "tls", "127.0.0.1")
            after = pair.certificate.read_text()
            assert after != before
            if how == "signal":
                process.process.send_signal(signal.SIGHUP)
            await process.said("reload: changed: nothing")
            assert await trio.to_thread.run_sync(shown, process, pair) == after
            await app.tell("still.here")
            assert (await upstream.event())["type"] == "still.here"


async def test_a_certificate_that_cannot_be_used_changes_nothing(file, tmp_path):
    pair = certificates.make(tmp_path / "tls", "127.0.0.1")
    before = pair.certificate.read_text()
    path = file(more=f'[[listen]]\naddress = "127.0.0.1:0"\nname = "s"\n{tls(*pair[:2])}')
    async with running(path) as process:
        await process.said("\n")
        pair.certificate.write_text("nothing")
        process.process.send_signal(signal.SIGHUP)
        await process.said("reload: nothing has changed: ")
        assert "has no certificate in PEM form in it" in process.err
        pair.certificate.write_text(before)
        assert await trio.to_thread.run_sync(shown, process, pair) == before
        process.err = process.err.replace("ERROR", "")


async def secured(process, pair):
    """A client in session over TLS."""
    (door,) = [part for part in process.out.split() if part.startswith("wss://")]
    stream = await trio.open_ssl_over_tcp_stream(
        "127.0.0.1", urlsplit(door).port, ssl_context=client_context(pair.authority)
    )
    try:
        await stream.send_all(upgrade("/v1/realtime", bearer()))
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return WebSocket(stream, await read_head(stream), client=True)


async def test_a_certificate_expires_under_clients(file, tmp_path):
    """Who is there talks on; who comes is told by his own TLS; with another certificate they come again."""
    pair = certificates.make(tmp_path / "tls", "127.0.0.1")
    async with scripted() as model, running(file(model.url, listen=tls(*pair[:2]))) as process:
        await process.said("\n")
        app = await secured(process, pair)
        upstream = await model.next()
        for days, times in ((-1, 1), (1, 2)):
            certificates.make(tmp_path / "tls", "127.0.0.1", days=days)
            process.process.send_signal(signal.SIGHUP)
            await process.said("reload: changed: nothing", times)
            if days < 0:
                with pytest.raises(trio.BrokenResourceError) as caught:
                    await secured(process, pair)
                assert "certificate has expired" in str(caught.value.__cause__)
            await app.tell("still.here")
            assert (await upstream.event())["type"] == "still.here"
        other = await secured(process, pair)
        for each in (app, other):
            await trio.aclose_forcefully(each.stream)


async def test_a_certificate_of_the_model_expires(text, tmp_path):
    """The session that has it goes on, others are refused, until the model has another certificate."""
    pair = certificates.make(tmp_path / "tls", "localhost")
    context = server_context(pair.certificate, pair.key)

    async def serve(stream):
        secured = trio.SSLStream(stream, context, server_side=True)
        socket = await switch(secured, await read_head(secured), frame(CREATED, masked=False))
        while True:
            await socket.send(await socket.receive())

    async with listening(serve) as url:
        there = url.replace("ws://127.0.0.1", "wss://localhost")
        async with (
            in_process(with_ca(text(there), pair.authority)) as gateway,
            client(gateway.address) as app,
        ):
            assert await app.receive() == CREATED
            for days in (-1, 1):
                certificates.make(tmp_path / "tls", "localhost", days=days)
                context.load_cert_chain(pair.certificate, pair.key)
                if days < 0:
                    answer = await refused(gateway.address)
                    assert (answer.status, answer.error["code"]) == (502, "upstream_unreachable")
                await app.tell("still.here")
                assert (await app.event())["type"] == "still.here"
            async with client(gateway.address) as other:
                assert await other.receive() == CREATED


async def test_a_watched_configuration(file):
    path = file()
    path.write_text("watch = true\n" + path.read_text())
    async with running(path) as process:
        text = path.read_text()
        new = path.with_suffix(".new")
        new.write_text(text.replace("old-model", "older-model"))
        new.rename(path)
        await process.said("reload: changed: upstream[0].models")
        folder = path.parent / "conf.d"
        folder.mkdir()
        (folder / "more.toml").write_text("[limits]\nmax_sessions = 7\n")
        await process.said("reload: changed: limits.max_sessions")
        (folder / "more.toml").write_text("[limits]\nmax_sessions = 0\n")
        await process.said("reload: nothing has changed: ")
        process.err = process.err.replace("ERROR", "")
