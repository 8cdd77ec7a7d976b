"""The verbs that ask a running daemon: their answers, and one line for whatever is in the way."""

import json
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from rtpipe.cli.main import main
from rtpipe.cli.tail import Folded, told

RTPIPE = [sys.executable, "-X", "dev", "-W", "error", "-m", "rtpipe.cli.main"]
README = Path(__file__).parents[2] / "config/README.md"
LINE = re.compile(r"\d\d:\d\d:\d\d\.\d{3} (\S+) (.*)")


@pytest.fixture(scope="module")
def folder():
    with tempfile.TemporaryDirectory(dir="/tmp") as name:  # a socket's path must be short
        yield Path(name)


@pytest.fixture(scope="module")
def daemon(folder):
    """A daemon with a simulated model, one for all tests; the path of its configuration."""
    path = folder / "rtpipe.toml"
    path.write_text(f"""\
chain = ["response-lock"]
state_dir = "{folder}/state"
[admin]
socket = "{folder}/admin.sock"
[[listen]]
address = "unix:{folder}/rtpipe.sock"
open = true
[[upstream]]
name = "sim"
kind = "sim"
url = "ws://127.0.0.1:9/v1/realtime"
default_model = "a-model"
""")
    command = [*RTPIPE, "run", "--sim", "--sim-pace", "0", "--config", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:  # noqa: S603
        try:
            assert process.stdout.readline().startswith("rtpipe: ready at ")
            yield path
        finally:
            process.send_signal(signal.SIGTERM)
            _, err = process.communicate(timeout=20)
    assert process.returncode == 0, err
    assert "Traceback" not in err


@pytest.fixture
def session(daemon):
    """A session by JSON lines: its id, its file and its socket."""
    with socket.socket(socket.AF_UNIX) as made:
        made.settimeout(10)
        made.connect(str(daemon.with_name("rtpipe.sock")))
        file = made.makefile("rw")
        file.write('{"type":"rtpipe.hello"}\n')
        file.flush()
        name = json.loads(file.readline())["session"]
        assert json.loads(file.readline())["type"] == "session.created"
        yield name, file, made
        file.close()


def test_sessions(daemon, session, capsys):
    name = session[0]
    assert main(["sessions", "--config", str(daemon)]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split()[:3] == ["SESSION", "PRINCIPAL", "MODEL"]
    (row,) = [each.split() for each in rows if each.startswith(name)]
    assert row[1:5] == ["anonymous", "a-model", "sim", f"unix:{daemon.with_name('rtpipe.sock')}"]
    assert main(["sessions", "show", name, "--socket", str(daemon.with_name("admin.sock"))]) == 0
    shown = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert (shown["id"], shown["client"], shown["chain"]) == (name, "attached", "the one in force")
    assert main(["sessions", "--json", "--config", str(daemon)]) == 0
    assert name in [each["id"] for each in json.loads(capsys.readouterr().out)["sessions"]]
    assert main(["sessions", "show", "a/b\x1b", "--config", str(daemon)]) == 1
    assert capsys.readouterr().err == "rtpipe: There is no session of this id in service.\n"


def test_reload_and_plugins(daemon, session, capsys):
    text = daemon.read_text()
    try:
        assert main(["reload", "--config", str(daemon)]) == 0
        assert capsys.readouterr().out == "reloaded: nothing has changed\n"
        daemon.write_text(f"{text}[limits]\nmax_sessions = 5\nwrite_deadline_s = 5\n")
        assert main(["reload", "--config", str(daemon)]) == 0
        assert capsys.readouterr().out.splitlines() == [
            "reloaded:",
            "  limits.max_sessions: 1000 -> 5",
            "  limits.write_deadline_s: 10.0 -> 5",
            "from the next start on: limits.write_deadline_s",
        ]
        assert main(["plugins", "disable", "response-lock", "--config", str(daemon)]) == 0
        out = capsys.readouterr().out.splitlines()
        assert out[0].endswith("50-plugins.toml: response-lock is disabled")
        assert out[1:4] == [
            "reloaded:",
            "  plugins.response-lock.enabled: true -> false",
            "from the next start on: limits.write_deadline_s",
        ]
        assert "1 session keeps the chain before this until the end" in out
        daemon.write_text("chain = [")
        assert main(["reload", "--socket", str(daemon.with_name("admin.sock"))]) == 1
        assert capsys.readouterr().err.startswith(f"rtpipe: {daemon}:1: not valid TOML")
        daemon.write_text(text)
        assert main(["plugins", "enable", "response-lock", "--config", str(daemon)]) == 0
        assert "new plugins: response-lock" in capsys.readouterr().out
    finally:
        daemon.write_text(text)


def test_tail(daemon, session):
    name, file, _ = session
    with subprocess.Popen(  # noqa: S603
        [*RTPIPE, "tail", name, "--config", str(daemon)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        seen = ""
        while "session.update" not in seen:  # until it watches
            file.write(
                '{"type":"session.update","session":{"type":"realtime","output_modalities":["text"]}}\n'
            )
            file.flush()
            assert json.loads(file.readline())["type"] in ("session.updated", "error")
            if select_readable(process.stdout, 0.1):
                seen = process.stdout.readline()
        item = {
            "type": "message",
            "role": "user",
            "content": [{"type": "input_text", "text": "\x9b31m\u2028"}],
        }
        file.write(json.dumps({"type": "conversation.item.create", "item": item}, ensure_ascii=False) + "\n")
        file.write('{"type":"response.create"}\n')
        file.flush()
        lines = []
        while not lines or "ResponseEnded" not in lines[-1]:
            lines.append(process.stdout.readline().rstrip("\n"))
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=10)
    assert (process.returncode, err) == (130, "")
    assert all(line.isprintable() for line in lines)
    matches = [LINE.fullmatch(line) for line in lines]
    assert {match[1] for match in matches} == {name}
    texts = [match[2] for match in matches]
    assert any(re.fullmatch(r"← response\.output_text\.delta ×\d+ \(\d+ bytes\)", text) for text in texts)
    assert any(text.startswith("→ conversation.item.create {") and "\\x9b31m" in text for text in texts)
    assert any(text.startswith("● ResponseEnded response_id=") for text in texts)


def select_readable(file, seconds):
    return bool(select.select([file], [], [], seconds)[0])


def test_tail_of_one_session_ends_with_it(daemon, session):
    name, file, made = session
    command = [*RTPIPE, "tail", name, "--types", "error", "--json", "--config", str(daemon)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:  # noqa: S603
        while not select_readable(process.stdout, 0.1):
            file.write("[]\n")
            file.flush()
        made.shutdown(socket.SHUT_RDWR)
        messages = [json.loads(line) for line in process.stdout]
        assert process.stderr.read() == ""
    assert process.returncode == 0
    assert messages[0]["event"]["type"] == "error"
    assert messages[-1]["fact"] == "SessionClosed"


def test_lines_of_tail_are_printable_whatever_comes():
    event = {"type": "rtpipe.event", "session": "s", "direction": "downstream"}
    for inner in ({"type": "a\x1b[2J", "x": "\n"}, {"type": 7}, {}, [], {"type": "x", "y": "z" * 5000}):
        line = told({**event, "event": inner}, 5000)
        assert line.isprintable()
        assert len(line) < 400
    assert told({"type": "rtpipe.missed", "count": 3}, 1).endswith("(3 lines were missed here)")
    assert "rtpipe.new" in told({"type": "rtpipe.new"}, 1)


VERBS = (["sessions"], ["reload"], ["tail"])


@pytest.mark.parametrize("verb", VERBS)
def test_what_is_in_the_way(verb, folder, config, capsys):
    def complaint(*words):
        assert main([*verb, *words]) == 1
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("rtpipe: ")
        assert err.count("\n") == 1
        return err

    assert "no admin socket: write [admin]" in complaint("--config", str(config()))
    place = folder / "none.sock"
    path = config(f'chain = [0]\n[admin]\nsocket = "{place}"\n')  # other mistakes are in nobody's way
    assert f"there is no socket at {place}" in complaint("--config", str(path))
    path = config("[admin]\nsokcet = 1\n")
    assert ":2: admin.sokcet: unknown option (did you mean socket?)" in complaint("--config", str(path))
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(place))
        assert "the daemon is not running" in complaint("--socket", str(place))
    place.unlink()
    assert "none.toml: no such file" in complaint("--config", "none.toml")
    assert "too long" in complaint("--socket", str(folder / ("x" * 200)))


def test_permission_denied(folder, capsys, monkeypatch):
    def refuse(self, address):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert main(["sessions", "--socket", str(folder / "x.sock")]) == 1
    assert "this user may not open" in capsys.readouterr().err


def test_something_else_listens_there(folder, capsys):
    """It answers, but not as a daemon would, or not at all."""
    place = folder / "other.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(place))
        server.listen()

        def answer():
            for _ in range(2):
                peer, _ = server.accept()
                with peer:
                    peer.recv(1000)
                    peer.sendall(b"220 mail.example ESMTP\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        for verb in ("sessions", "tail"):
            assert main([verb, "--socket", str(place)]) == 1
            assert "is no admin socket of rtpipe" in capsys.readouterr().err
        thread.join()


@pytest.mark.skipif(shutil.which("socat") is None, reason="there is no socat here")
def test_the_client_of_one_line_in_the_documentation(daemon):
    text = README.read_text("utf-8")
    script = re.search(r"```sh\n(\{ echo .*?)```", text, re.DOTALL)[1]
    script = script.replace("/run/rtpipe/rtpipe.sock", str(daemon.with_name("rtpipe.sock")))
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=30, check=True)  # noqa: S603, S607
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines[0]["type"] == "rtpipe.welcome"
    assert lines[-1] == {"type": "rtpipe.closed", "code": 1000, "reason": ""}
    assert [each["text"] for each in lines if each["type"] == "response.output_text.done"] == [
        "You said: Hello"
    ]


def test_kill(daemon, session, capsys):
    name, file, _ = session
    assert main(["sessions", "kill", "--config", str(daemon)]) == 2
    assert "rtpipe sessions kill ID" in capsys.readouterr().err
    assert main(["sessions", "kill", name, "--config", str(daemon)]) == 0
    assert capsys.readouterr().out == f"ended: {name}\n"
    closed = json.loads(file.readlines()[-1])
    assert (closed["type"], closed["code"]) == ("rtpipe.closed", 1008)
    assert main(["sessions", "kill", name, "--config", str(daemon)]) == 1


def test_record_and_replay(daemon, session, capsys, tmp_path):
    name, file, _ = session
    target = tmp_path / "call.jsonl"
    command = [*RTPIPE, "record", name, str(target), "--config", str(daemon)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        assert process.stdout.readline() == f"recording {name}\n"
        session_update = {"type": "realtime", "output_modalities": ["text"]}
        content = [{"type": "input_text", "text": "my card is 4111 1111 1111 1111"}]
        for event in (
            {"type": "session.update", "session": session_update},
            {
                "type": "conversation.item.create",
                "item": {"type": "message", "role": "user", "content": content},
            },
            {"type": "response.create"},
        ):
            file.write(json.dumps(event) + "\n")
            file.flush()
        while json.loads(file.readline())["type"] != "response.done":
            pass
        assert main(["sessions", "kill", name, "--config", str(daemon)]) == 0
        out, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    assert out.startswith(f"{target}: ")
    assert target.stat().st_mode & 0o777 == 0o600
    text = target.read_text()
    assert "4111 1111" not in text  # ids are random digits too
    assert "[card]" in text
    capsys.readouterr()
    assert main(["record", name, str(target), "--config", str(daemon)]) == 1
    assert main(["replay", str(target)]) == 0, capsys.readouterr().out
    assert capsys.readouterr().out.startswith("no difference: ")
    lines = text.splitlines(keepends=True)
    said = [line.replace("my card is", "other words") if '"upstream"' in line else line for line in lines]
    target.write_text("".join(said))
    assert main(["replay", str(target)]) == 1
    assert "+++ replayed" in capsys.readouterr().out
    assert main(["replay", str(daemon)]) == 1
    assert capsys.readouterr().err.endswith("this is no recording of rtpipe's\n")
    assert main(["replay", str(target), "--url", "ws://127.0.0.1:9/v1/realtime"]) == 1
    assert "cannot connect" in capsys.readouterr().err


def test_deltas_are_folded(monkeypatch):
    folded = Folded()
    delta = {
        "type": "rtpipe.event",
        "session": "s",
        "direction": "downstream",
        "event": {"type": "response.output_audio.delta", "delta": "AAAA"},
    }
    assert [folded.told(delta, 10) for _ in range(3)] == [[], [], []]
    other = {"type": "rtpipe.event", "session": "t", "direction": "upstream", "event": {"type": "a"}}
    assert len(folded.told(other, 1)) == 1
    last = {**delta, "event": {"type": "response.output_audio.done"}}
    counted, done = folded.told(last, 5)
    assert counted.endswith("s ← response.output_audio.delta ×3 (30 bytes)")
    assert "response.output_audio.done" in done
