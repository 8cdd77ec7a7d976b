"""TLS at the doors of the daemon, and on its way to the model."""

from __future__ import annotations

import os
import re
import shutil
import ssl

import pytest
import trio

from rtpipe.cli.main import main
from rtpipe.transport.contexts import server_context
from tests.daemon.kit import KEY, client, failed, in_process, refused, running, simulated
from tests.daemon.openai_client import turns
from tests.daemon.wire import WAIT_S, Address
from tests.transport.certificates import make


def tls(certificate, key):
    return f'tls = {{ certificate = "{certificate}", key = "{key}" }}'


@pytest.fixture
def dev_cert(tmp_path, capsys):
    """A folder in which ``rtpipe dev-cert`` has been, and what it printed."""
    folder = tmp_path / "dev"
    assert main(["dev-cert", str(folder)]) == 0
    return folder, capsys.readouterr().out


def port_of(process):
    return int(re.search(r"wss://[^ /]+:(\d+)/v1/realtime", process.out)[1])


async def test_openai_over_wss(file, dev_cert, monkeypatch):
    folder, _ = dev_cert
    monkeypatch.setenv("SSL_CERT_FILE", str(folder / "ca.pem"))
    path = file(listen=tls(folder / "server.pem", folder / "server-key.pem"))
    async with running(path, "--sim", "--sim-pace", "0") as process:
        assert process.out.startswith("rtpipe: ready at wss://127.0.0.1:")
        for host in ("localhost", "127.0.0.1"):
            text, spoken = await turns(f"https://{host}:{port_of(process)}/v1", KEY)
            assert text
            assert spoken > 10_000
        monkeypatch.delenv("SSL_CERT_FILE")
        with pytest.raises(ssl.SSLCertVerificationError):
            await turns(f"https://localhost:{port_of(process)}/v1", KEY)


async def test_the_lines_of_dev_cert_are_a_configuration(text, dev_cert, tmp_path, capsys):
    _, printed = dev_cert
    listen = printed.partition("\n")[2].partition("\n\n")[0].replace("127.0.0.1:8443", "127.0.0.2:0")
    path = tmp_path / "rtpipe.toml"
    path.write_text(text(more=listen))
    assert await trio.to_thread.run_sync(main, ["check", "--config", str(path)]) == 0
    assert "listen: ws://127.0.0.1:0\nlisten: wss://127.0.0.2:0\n" in capsys.readouterr().out
    async with running(path, "--sim") as process:
        assert re.search(r"ready at ws://\S+/v1/realtime wss://\S+/v1/realtime with", process.out)


# --- what cannot be used is said at start


async def test_files_that_cannot_be_used_are_one_line_with_its_place(file, tmp_path, capsys):
    pair = make(tmp_path / "one", "localhost")
    other = make(tmp_path / "other", "localhost")
    for certificate, key, said in (
        (tmp_path / "none.pem", pair.key, f"{tmp_path}/none.pem cannot be read (No such file or directory)"),
        (pair.certificate, tmp_path, f"{tmp_path} cannot be read (Is a directory)"),
        (pair.key, pair.key, f"{pair.key} has no certificate in PEM form in it"),
        (pair.certificate, pair.certificate, f"{pair.certificate} has no private key in PEM form in it"),
        (pair.certificate, other.key, f"{other.key} is not the key of {pair.certificate}"),
    ):
        path = file(listen=tls(certificate, key))
        expected = f"rtpipe: {path}:6: listen[0].tls: {said}"
        assert main(["check", "--config", str(path)]) == 1
        assert capsys.readouterr().err == f"{expected}\n"
    assert await failed(path) == [expected]


async def test_an_authority_that_cannot_be_used(tmp_path, text):
    path = tmp_path / "rtpipe.toml"
    path.write_text(with_ca(text("wss://localhost:9/v1/realtime"), tmp_path / "none.pem"))
    (line,) = await failed(path)
    assert "upstream[0].ca: " in line
    assert line.endswith("none.pem cannot be read (No such file or directory)")


# --- on the way to the model


def with_ca(text, authority):
    return text.replace('kind = "sim"\n', f'kind = "sim"\nca = "{authority}"\n')


async def test_through_two_daemons_with_tls_between_them(text, tmp_path):
    pair = make(tmp_path / "inner", "localhost")
    async with simulated() as model:
        inner = text(model, listen=tls(pair.certificate, pair.key), key="sk-of-the-gateway")
        async with in_process(inner.replace("127.0.0.1:0", "localhost:0")) as behind:
            port = behind.address[1]
            outer = with_ca(text(f"wss://localhost:{port}/v1/realtime"), pair.authority)
            async with in_process(outer) as before, client(before.address) as app:
                await app.until("session.created")
                audio = "A" * 15 * 2**20
                await app.tell("input_audio_buffer.append", audio=audio)
                await app.tell("input_audio_buffer.clear")
                await app.until("input_audio_buffer.cleared")
                (session,) = behind.process.sessions.values()
                await app.reset()
                with trio.fail_after(WAIT_S):
                    await session.ended.wait()


@pytest.mark.parametrize(
    ("names", "options", "said"),
    [
        (
            ["localhost"],
            {"signer": "strangers"},
            "unable to get local issuer certificate",
        ),
        (
            ["other.test"],
            {},
            "Hostname mismatch, certificate is not valid for 'localhost'",
        ),
        (["localhost"], {"days": -1}, "certificate has expired"),
    ],
)
async def test_a_model_that_cannot_prove_who_it_is(text, tmp_path, caplog, names, options, said):
    ours = make(tmp_path / "ours", "localhost")
    theirs = make(tmp_path / "theirs", *names, **options)
    async with tls_server(server_context(theirs.certificate, theirs.key)) as port:
        url = f"wss://localhost:{port}/v1/realtime"
        async with in_process(with_ca(text(url), ours.authority)) as daemon:
            answer = await refused(daemon.address)
    assert answer.status == 502
    assert answer.error["code"] == "upstream_unreachable"
    assert f"upstream: TLS with localhost:{port}: certificate verify failed: {said}" in [
        record.message for record in caplog.records
    ]


@pytest.mark.filterwarnings("ignore:.*TLSv1_1 is deprecated")
async def test_a_model_that_speaks_old_tls(text, tmp_path, caplog):
    pair = make(tmp_path / "old", "localhost")
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    old.load_cert_chain(pair.certificate, pair.key)
    old.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("DEFAULT:@SECLEVEL=0")
    async with tls_server(old) as port:
        outer = with_ca(text(f"wss://localhost:{port}/v1/realtime"), pair.authority)
        async with in_process(outer) as daemon:
            assert (await refused(daemon.address)).status == 502
    assert f"upstream: TLS with localhost:{port}: " in caplog.text


async def test_an_authority_may_be_replaced_under_way(text, tmp_path, caplog):
    pair = make(tmp_path / "server", "localhost")
    stranger = make(tmp_path / "stranger", "localhost", signer="strangers")
    trusted = tmp_path / "ca.pem"
    shutil.copy(stranger.authority, trusted)
    async with simulated() as model:
        inner = text(model, listen=tls(pair.certificate, pair.key), key="sk-of-the-gateway")
        async with in_process(inner.replace("127.0.0.1:0", "localhost:0")) as behind:
            outer = with_ca(text(f"wss://localhost:{behind.address[1]}/v1/realtime"), trusted)
            async with in_process(outer) as before:
                assert (await refused(before.address)).status == 502
                shutil.copy(pair.authority, trusted)
                async with client(before.address) as app:
                    await app.until("session.created")
                os.unlink(trusted)
                assert (await refused(before.address)).status == 502
    assert "ca.pem is no authority's certificate any more" in caplog.text


class tls_server:  # noqa: N801 - used as a function
    """A server that shakes hands, and no more."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        self._manager = trio.open_nursery()

    async def __aenter__(self) -> int:
        self._nursery = await self._manager.__aenter__()
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self._nursery.start_soon(trio.serve_listeners, self._greet, [listener])
        address: Address = listener.socket.getsockname()
        return address[1]

    async def _greet(self, stream: trio.SocketStream) -> None:
        secured = trio.SSLStream(stream, self._context, server_side=True)
        try:
            await secured.do_handshake()
            await secured.receive_some()
        except trio.BrokenResourceError:
            pass
        finally:
            await trio.aclose_forcefully(secured)

    async def __aexit__(self, *exc: object) -> None:
        self._nursery.cancel_scope.cancel()
        await self._manager.__aexit__(*exc)
