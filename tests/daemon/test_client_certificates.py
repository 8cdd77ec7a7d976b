"""Clients that show who they are by a certificate, and those that do not."""

from __future__ import annotations

import ssl

import pytest
import trio

from rtpipe.cli.main import main
from tests.daemon.kit import in_process, simulated
from tests.daemon.wire import WAIT_S, Ended, read_head, upgrade
from tests.transport.certificates import authority, make

PEER = """
[[plugins.auth.certificates]]
id = "warehouse"
subject = "{subject}"
"""


def named(tmp_path, name="warehouse", signer="clients"):
    """Files of a certificate for a client."""
    made = authority(signer).issue_cert(f"{name}.test", common_name=name, organization_name="Ex, ample")
    certificate, key = tmp_path / f"{name}.pem", tmp_path / f"{name}-key.pem"
    made.cert_chain_pems[0].write_to_path(certificate)
    made.private_key_pem.write_to_path(key)
    return certificate, key


async def handshake(address, server, files, headers=()):
    """The status of a handshake; ``None``: the server would not even talk."""
    context = ssl.create_default_context(cafile=str(server.authority))
    if files is not None:
        context.load_cert_chain(*files)
    stream = trio.SSLStream(await trio.open_tcp_stream(*address), context, server_hostname="localhost")
    try:
        with trio.fail_after(WAIT_S):
            await stream.send_all(upgrade("/v1/realtime", headers))
            return (await read_head(stream)).status
    except (trio.BrokenResourceError, Ended):
        return None
    finally:
        await trio.aclose_forcefully(stream)


@pytest.fixture
def server(tmp_path):
    return make(tmp_path / "server", "localhost")


@pytest.fixture
def listen(tmp_path, server):
    ca = tmp_path / "clients.pem"
    authority("clients").cert_pem.write_to_path(ca)
    return f'tls = {{ certificate = "{server.certificate}", key = "{server.key}", client_ca = "{ca}" }}'


async def test_who_has_a_certificate_of_the_authority_is_let_in_as_its_subject(
    text, server, listen, tmp_path
):
    warehouse, other = named(tmp_path), named(tmp_path, "other")
    stranger = named(tmp_path, "stranger", "strangers")
    async with simulated() as model:
        async with in_process(text(model, listen=listen, more=PEER.format(subject="nobody"))) as gateway:
            assert await handshake(gateway.address, server, warehouse) == 401
            assert await handshake(gateway.address, server, None) is None
            assert await handshake(gateway.address, server, stranger) is None
        shown = await subject_of(warehouse)
        assert shown.startswith("CN=warehouse,")
        # What is between the names is escaped, so no name can look like two.
        assert "O=Ex\\, ample" in shown
        more = PEER.format(subject=shown.replace("\\", "\\\\"))
        async with in_process(text(model, listen=listen, more=more)) as gateway:
            assert await handshake(gateway.address, server, warehouse) == 101
            assert await handshake(gateway.address, server, other) == 401
            wrong = [("Authorization", "Bearer wrong")]
            assert await handshake(gateway.address, server, warehouse, wrong) == 401


async def subject_of(files):
    """What ``openssl x509`` prints of a certificate's subject."""
    done = await trio.run_process(
        ["openssl", "x509", "-noout", "-subject", "-nameopt", "RFC2253", "-in", str(files[0])],
        capture_stdout=True,
    )
    return done.stdout.decode().strip().removeprefix("subject=").strip()


async def test_an_authority_that_cannot_be_used_is_one_line(file, server, tmp_path, capsys):
    for ca, said in (
        (tmp_path / "none.pem", "none.pem cannot be read (No such file or directory)"),
        (server.key, "server-key.pem has no certificate in PEM form in it"),
    ):
        tls = f'tls = {{ certificate = "{server.certificate}", key = "{server.key}", client_ca = "{ca}" }}'
        assert main(["check", "--config", str(file(listen=tls))]) == 1
        assert capsys.readouterr().err.endswith(f"{said}\n")
