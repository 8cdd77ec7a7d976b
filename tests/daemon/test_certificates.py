"""Certificates that are replaced under a running daemon, and a configuration that is watched."""

import signal
import ssl

import pytest
import trio

from tests.daemon.kit import client, running, scripted
from tests.daemon.test_tls import port_of, tls
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
