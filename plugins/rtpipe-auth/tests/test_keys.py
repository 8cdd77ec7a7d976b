"""``rtpipe keys new ID``."""

import argparse
import hashlib
import re
import tomllib
from pathlib import Path

import msgspec
import pytest

from rtpipe_auth import Auth, Config
from rtpipe_auth.registry import Registry


def run(*words: str) -> int:
    (command,) = Auth.commands()
    parser = argparse.ArgumentParser(prog=f"rtpipe {command.name}")
    command.arguments(parser)
    return command.run(parser.parse_args(words))


def test_the_command_is_called_keys() -> None:
    assert [command.name for command in Auth.commands()] == ["keys"]


def test_the_key_is_alone_on_stdout_and_the_lines_let_it_in(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("new", "kiosk.2_b-c") == 0
    out, err = capsys.readouterr()
    assert re.fullmatch(r"rtp_sk_[A-Za-z0-9_-]{43}\n", out)
    key = out.strip()
    assert key not in err
    assert list(tmp_path.iterdir()) == []

    toml = err[err.index("[[") :]
    config = msgspec.convert(tomllib.loads(toml)["plugins"]["auth"], Config)
    assert config.keys[0].sha256 == hashlib.sha256(key.encode()).hexdigest()
    holder = Registry(config, "auth").holder(key)
    assert holder is not None
    assert holder.id == "kiosk.2_b-c"


def test_two_keys_differ(capsys: pytest.CaptureFixture[str]) -> None:
    run("new", "kiosk")
    first = capsys.readouterr().out
    run("new", "kiosk")
    assert capsys.readouterr().out != first


@pytest.mark.parametrize(
    "words", [(), ("new",), ("old", "kiosk"), ("new", "a b"), ("new", 'a"b'), ("new", "é")]
)
def test_anything_else_prints_no_key(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        run(*words)
    assert caught.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    if len(words) == 2 and words[0] == "new":
        assert "cannot be used: write 1 to 64 letters" in err
