"""``rtpipe dev-cert``: a certificate for trying TLS out, and what makes clients trust it."""

import argparse
import json
import os
import shlex
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from rtpipe.api.errors import ConfigError

NAME = "dev-cert"
HELP = "make a certificate for this machine, and an authority that clients can trust, for development"

NAMES: Final = ("localhost", "127.0.0.1", "::1")
DAYS: Final = 825  # the longest that every client accepts
AUTHORITY, CERTIFICATE, KEY = "ca.pem", "server.pem", "server-key.pem"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", metavar="DIRECTORY", type=Path, help="where to put it; made if needed")
    parser.add_argument(
        "names", metavar="NAME", nargs="*", help=f"names and addresses besides {', '.join(NAMES)}"
    )
    parser.epilog = (
        f"Nothing is overwritten. The authority's own key is not kept, so that nobody can make it vouch for "
        f"anything else; after {DAYS} days, or for another name, make a new pair in another directory."
    )


def run(args: argparse.Namespace) -> int:
    directory: Path = args.directory.absolute()
    names = list(dict.fromkeys([*NAMES, *args.names]))
    files = _make(names)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if taken := next((name for name in files if (directory / name).exists()), None):
            raise ConfigError(f"{directory / taken} is there already: name another directory")
        for name, text in files.items():
            _write(directory / name, text, 0o600 if name == KEY else 0o644)
    except OSError as exc:
        raise ConfigError(f"{exc.filename or directory} cannot be written ({exc.strerror})") from None
    trusted = shlex.quote(str(directory / AUTHORITY))
    print(
        f"# For {', '.join(names)}; {DAYS} days from now on. In the configuration:\n"
        "[[listen]]\n"
        'address = "127.0.0.1:8443"\n'
        f"tls = {{ certificate = {_toml(directory / CERTIFICATE)}, key = {_toml(directory / KEY)} }}\n"
        "\n"
        "# For clients:\n"
        "export OPENAI_BASE_URL=https://localhost:8443/v1\n"
        f"export NODE_EXTRA_CA_CERTS={trusted}   # Node.js trusts it besides all others\n"
        f"export SSL_CERT_FILE={trusted}   # Python and OpenSSL trust it instead of all others"
    )
    return 0


def _toml(path: Path) -> str:
    return json.dumps(str(path))


def _make(names: list[str]) -> dict[str, bytes]:
    """The files, by name. Raises ``ConfigError``."""
    try:
        import trustme
    except ImportError:
        raise ConfigError(
            'dev-cert needs the package trustme: pip install "rtpipe-gateway[dev-cert]"'
        ) from None
    authority = trustme.CA(organization_name="rtpipe dev-cert", organization_unit_name="for development only")
    until = datetime.now(UTC) + timedelta(days=DAYS)
    try:
        made = authority.issue_cert(*names, common_name=names[0], not_after=until)
    except ValueError as exc:  # idna's errors are among them
        raise ConfigError(f"no certificate can be made for these names: {exc}") from None
    chain = b"".join(blob.bytes() for blob in made.cert_chain_pems)
    return {
        AUTHORITY: authority.cert_pem.bytes(),
        CERTIFICATE: chain,
        KEY: made.private_key_pem.bytes(),
    }


def _write(path: Path, text: bytes, mode: int) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(text)
