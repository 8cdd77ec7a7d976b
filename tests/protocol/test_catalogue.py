import subprocess
import sys
from typing import Any, get_args

import pytest
from openai.types.realtime import RealtimeClientEvent, RealtimeServerEvent

from rtpipe.protocol import catalogue


def types_of(union: Any) -> set[str]:
    """The `type` literals of one of the official SDK's event unions."""
    members = get_args(get_args(union)[0])
    return {name for member in members for name in get_args(member.model_fields["type"].annotation)}


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(catalogue.CLIENT_TYPES, RealtimeClientEvent), (catalogue.SERVER_TYPES, RealtimeServerEvent)],
)
def test_the_catalogue_is_what_the_official_sdk_knows(ours: frozenset[str], theirs: Any) -> None:
    assert ours == types_of(theirs)


def test_nothing_is_named_twice() -> None:
    assert (len(catalogue.CLIENT_TYPES), len(catalogue.SERVER_TYPES)) == (11, 46)
    for group, names in ((catalogue.Client, 11), (catalogue.Server, 46)):
        assert sum(key.isupper() for key in vars(group)) == names


def test_the_package_does_not_load_trio() -> None:
    code = (
        "import sys, pkgutil, importlib, rtpipe.protocol as p\n"
        "for m in pkgutil.iter_modules(p.__path__): importlib.import_module('rtpipe.protocol.' + m.name)\n"
        "print(*sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603
    loaded = run.stdout.split()
    assert "rtpipe.protocol.reading" in loaded
    assert "trio" not in loaded
