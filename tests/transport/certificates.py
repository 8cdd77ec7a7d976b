"""Certificates for tests, made anew for each run."""

import datetime
import functools
from pathlib import Path
from typing import NamedTuple

import trustme


class Pair(NamedTuple):
    """PEM files: a certificate, its key, and the authority that vouches for it."""

    certificate: Path
    key: Path
    authority: Path


@functools.cache
def authority(name: str = "ours") -> trustme.CA:
    return trustme.CA(organization_name=name)


def make(folder: Path, *names: str, signer: str = "ours", days: int = 1) -> Pair:
    """A certificate for `names`, good until so many days from now."""
    folder.mkdir(exist_ok=True)
    until = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)
    ca = authority(signer)
    made = ca.issue_cert(*names, not_after=until, not_before=until - datetime.timedelta(days=9))
    pair = Pair(folder / "server.pem", folder / "server-key.pem", folder / "ca.pem")
    made.cert_chain_pems[0].write_to_path(pair.certificate)
    made.private_key_pem.write_to_path(pair.key)
    ca.cert_pem.write_to_path(pair.authority)
    return pair
