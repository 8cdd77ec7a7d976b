"""What either side of TLS shows and trusts, from PEM files; versions and options are the same everywhere."""

import ssl
from contextlib import suppress
from pathlib import Path
from typing import Final

ALPN: Final = ["http/1.1"]


def server_context(certificate: Path, key: Path, client_ca: Path | None = None) -> ssl.SSLContext:
    """For listeners: TLS 1.2 or 1.3, a certificate (with its chain) and its key from PEM files.

    With `client_ca`, only for peers that show a certificate of that authority.

    Raises ValueError with a sentence that begins with the name of the file at fault, and OSError.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _restrict(context)
    for file, block in ((certificate, b"CERTIFICATE-----"), (key, b"PRIVATE KEY-----")):
        if block not in file.read_bytes():
            raise ValueError(f"{file} has no {block.decode().strip('-').lower()} in PEM form in it")
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except _Encrypted:
        raise ValueError(f"{key} is encrypted: rtpipe has nobody to ask for a password") from None
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ValueError(f"{key} is not the key of {certificate}") from None
        raise ValueError(f"{certificate} and {key} cannot be used: {error.reason or error}") from None
    if client_ca is not None:
        _trust(context, client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(authority: Path | None = None) -> ssl.SSLContext:
    """For dialling: TLS 1.2 or 1.3, certificate and name verified by `authority`'s PEM, else by the system.

    Raises ValueError with a sentence that begins with the name of the file, and OSError.
    """
    if authority is None:
        context = ssl.create_default_context()
    else:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # which verifies, and trusts nobody so far
        _trust(context, authority)
    _restrict(context)
    return context


def _trust(context: ssl.SSLContext, authority: Path) -> None:
    with suppress(ssl.SSLError, ValueError):
        context.load_verify_locations(cadata=authority.read_bytes().decode("ascii"))
    if not context.cert_store_stats()["x509"]:
        raise ValueError(f"{authority} has no certificate in PEM form in it")


class _Encrypted(Exception):
    pass


def _no_password() -> str:
    raise _Encrypted


def _restrict(context: ssl.SSLContext) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.set_alpn_protocols(ALPN)
