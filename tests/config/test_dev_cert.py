"""``rtpipe dev-cert``: what it leaves, what it refuses."""

import ssl
import stat
import sys

import pytest

from rtpipe.cli.dev_cert import DAYS
from rtpipe.cli.main import main


def names_in(certificate):
    """What the certificate is good for, and when it ends, as OpenSSL reads it."""
    decoded = ssl._ssl._test_decode_cert(str(certificate))
    return {name for _, name in decoded["subjectAltName"]}, ssl.cert_time_to_seconds(decoded["notAfter"])


def test_what_it_makes(tmp_path, capsys):
    folder = tmp_path / "a folder" / "inside"
    assert main(["dev-cert", str(folder), "gateway.test", "10.0.0.1", "localhost"]) == 0
    files = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert set(files) == {"ca.pem", "server.pem", "server-key.pem"}
    assert files["server-key.pem"] == 0o600
    names, end = names_in(folder / "server.pem")
    assert names == {"localhost", "127.0.0.1", "0:0:0:0:0:0:0:1", "gateway.test", "10.0.0.1"}
    assert DAYS * 86400 - 3600 < end - (folder / "server.pem").stat().st_mtime <= DAYS * 86400
    assert "PRIVATE" not in (folder / "ca.pem").read_text()
    out = capsys.readouterr().out
    assert f'tls = {{ certificate = "{folder}/server.pem", key = "{folder}/server-key.pem" }}\n' in out
    assert f"export NODE_EXTRA_CA_CERTS='{folder}/ca.pem' " in out
    assert f"export SSL_CERT_FILE='{folder}/ca.pem' " in out


@pytest.mark.parametrize("taken", ["ca.pem", "server.pem", "server-key.pem"])
def test_nothing_is_overwritten(tmp_path, capsys, taken):
    (tmp_path / taken).write_text("precious")
    assert main(["dev-cert", str(tmp_path)]) == 1
    err = capsys.readouterr().err
    assert err == f"rtpipe: {tmp_path / taken} is there already: name another directory\n"
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(taken, "precious")]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["/proc/none"], "/proc/none cannot be written ("),
        (["{tmp}", "a b"], "no certificate can be made for these names: "),
        (["{tmp}", ""], "no certificate can be made for these names: "),
    ],
)
def test_a_mistake_is_one_line(tmp_path, capsys, arguments, said):
    assert main(["dev-cert", *(each.replace("{tmp}", str(tmp_path)) for each in arguments)]) == 1
    err = capsys.readouterr().err
    assert err.startswith(f"rtpipe: {said}")
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_what_to_install(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "trustme", None)
    assert main(["dev-cert", str(tmp_path)]) == 1
    hint = 'rtpipe: dev-cert needs the package trustme: pip install "rtpipe-gateway[dev-cert]"\n'
    assert capsys.readouterr().err == hint
