"""The command line, verb by verb."""

import os
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from rtpipe.cli import main as cli
from rtpipe.cli.main import main

from .conftest import HOST

RTPIPE = [sys.executable, "-m", "rtpipe.cli.main"]
CHAIN = HOST.replace("[]", '["example"]')


@pytest.fixture(autouse=True)
def _key(monkeypatch):
    monkeypatch.setenv("TEST_API_KEY", "sk-x")


def test_help_version_and_usage(capsys, example, distribution):
    distribution("broken", "raise RuntimeError('no')", dist="dist-broken")
    assert main(["--help"]) == 0
    out, err = capsys.readouterr()
    for verb in (*cli.VERBS, "greet"):
        assert f"\n  {verb} " in out
    assert "rtpipe: warning: plugin broken (dist-broken 1.5) cannot be imported: RuntimeError: no" in err
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("rtpipe ")
    assert main([]) == 2
    assert main(["chekc"]) == 2
    assert "there is no verb chekc (did you mean check?)" in capsys.readouterr().err
    assert main(["check", "--no-such-option"]) == 2


def test_verbs_of_plugins(capsys, example):
    assert main(["greet", "--code", "5"]) == 5
    assert capsys.readouterr().out == "hello\n"
    assert main(["greet", "--help"]) == 0
    assert "say hello" in capsys.readouterr().out


def test_a_plugin_cannot_take_a_verb(capsys, distribution):
    distribution(
        "greedy",
        """
        from rtpipe import Command, Plugin
        class Example(Plugin):
            @classmethod
            def commands(cls):
                return [Command("check", "mine", lambda parser: None, lambda args: 9)]
        """,
    )
    distribution(
        "faulty",
        """
        from rtpipe import Plugin
        class Example(Plugin):
            @classmethod
            def commands(cls):
                raise KeyError("oh")
        """,
    )
    assert main(["no-such-verb"]) == 2
    err = capsys.readouterr().err
    assert "verb check of plugin greedy is taken already" in err
    assert "commands of plugin faulty: KeyError: 'oh'" in err


def test_check(capsys, config, example):
    path = config(CHAIN + "[plugins.exampel]\n")
    assert main(["check", "--config", str(path)]) == 0
    out, err = capsys.readouterr()
    assert f"{path}: ok\nchain: example\nlisten: ws://127.0.0.1:8787 (open to everybody)\n" in out
    assert "  response.create  example\n" in out
    assert err.startswith(f"rtpipe: warning: {path}:13: plugins.exampel: no stage")


def test_check_says_all_that_is_wrong(capsys, config, example, monkeypatch):
    monkeypatch.delenv("TEST_API_KEY")
    text = HOST.replace("[]", '["example", "no-such-plugin"]') + "[plugins.example]\nmax_edge_px = 0\n"
    path = config(text)
    assert main(["check", "--config", str(path)]) == 1
    out, err = capsys.readouterr()
    assert not out
    assert [line.split(": ")[2] for line in err.splitlines()] == [
        "plugins.example.max_edge_px",
        "chain[1]",
        "upstream[0].api_key",
    ]


def test_check_says_when_the_chain_cannot_be_compiled(capsys, config, distribution):
    source = "from rtpipe import Plugin\nclass Example(Plugin):\n  before = ('one',)\n"
    distribution("one", "from rtpipe import Plugin\nclass Example(Plugin): ...")
    distribution("two", source)
    path = config(HOST.replace("[]", '["one", "two"]'))
    assert main(["check", "--config", str(path)]) == 1
    assert capsys.readouterr().err.startswith(f"rtpipe: {path}:1: chain: ")


def test_check_says_what_stages_warn_of(capsys, config, distribution):
    distribution(
        "offering",
        """
        from rtpipe import Plugin, Tool
        class Example(Plugin):
            def tools(self):
                return [Tool(name="clock", description="", parameters={})]
        """,
    )
    distribution(
        "private",
        """
        from rtpipe import Plugin, Tool
        class Example(Plugin):
            def tools(self, session):
                raise RuntimeError("there is no session")
        """,
    )
    distribution(
        "judge",
        """
        from rtpipe import Plugin
        class Example(Plugin):
            def warnings(self, tools):
                return [f"{tool.name} is not described" for tool in tools]
        """,
    )
    path = config(HOST.replace("[]", '["judge", "offering", "private"]'))
    assert main(["check", "--config", str(path)]) == 0
    out, err = capsys.readouterr()
    assert err == "rtpipe: warning: plugin judge: clock is not described\n"
    assert "chain: judge" in out


def test_plugins_list(capsys, config, example, distribution):
    distribution("spare", "", dist="dist-spare")
    path = config(
        CHAIN.replace('"]', '", "second"]') + '[plugins.second]\nuse = "example"\nenabled = false\n'
    )
    assert main(["plugins", "--config", str(path)]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows[1][:6] == ["example", "example", example, "1.5", "yes", "close"]
    assert " ".join(rows[1][6:]) == "client_event: response.create; watch server_event: all"
    assert rows[2][:6] == ["second", "example", example, "1.5", "no", "close"]
    assert ["–", "spare", "dist-spare", "1.5", "–", "–"] in rows
    path = config(HOST.replace("[]", '["spare"]'))
    assert main(["plugins", "list", "--config", str(path)]) == 1
    assert "plugin spare (dist-spare 1.5) cannot be imported" in capsys.readouterr().err


def test_plugins_disable_and_enable(capsys, config, example):
    path = config(CHAIN)
    drop_in = path.parent / "conf.d/50-plugins.toml"
    assert main(["plugins", "disable", "example", "--config", str(path)]) == 0
    assert (
        capsys.readouterr().out == f"wrote {drop_in}: example is disabled from the next start of rtpipe on\n"
    )
    assert tomllib.loads(drop_in.read_text()) == {"plugins": {"example": {"enabled": False}}}
    assert main(["plugins", "disable", "example", "--config", str(path)]) == 0
    assert "nothing written" in capsys.readouterr().out
    drop_in.write_text(
        "[plugins.example]\nenabled = false\nmax_edge_px = 5\n[plugins.more]\nenabled = false\n"
    )
    drop_in.chmod(0o640)
    assert main(["plugins", "--config", str(path), "enable", "example"]) == 0
    assert tomllib.loads(drop_in.read_text())["plugins"] == {
        "example": {"enabled": True, "max_edge_px": 5},
        "more": {"enabled": False},
    }
    assert drop_in.stat().st_mode & 0o777 == 0o640
    assert [file.name for file in drop_in.parent.iterdir()] == ["50-plugins.toml"]
    assert path.read_text() == CHAIN


def test_plugins_enable_what_would_not_load(capsys, config, example):
    bad = CHAIN + "[plugins.example]\nenabled = false\nmax_edge_px = 0\n"
    path = config(bad)
    assert main(["plugins", "enable", "example", "--config", str(path)]) == 1
    assert f"{path}:15: plugins.example.max_edge_px: expected an integer >= 1" in capsys.readouterr().err
    assert not (path.parent / "conf.d").exists()
    assert main(["plugins", "enable", "other", "--config", str(path)]) == 1
    assert ':1: chain: has no stage other: write "other" into this list' in capsys.readouterr().err
    path = config(CHAIN, **{"60-later": "[plugins.example]\nenabled = false\n"})
    assert main(["plugins", "enable", "example", "--config", str(path)]) == 1
    assert "60-later.toml:2: plugins.example.enabled: this file is read after" in capsys.readouterr().err
    assert not (path.parent / "conf.d/50-plugins.toml").exists()


def test_sample(capsys, example):
    assert main(["sample"]) == 0
    out = capsys.readouterr().out
    tomllib.loads(out)
    assert "max_edge_px = 3" in out
    assert main(["sample", "--schema"]) == 0
    assert '"max_edge_px"' in capsys.readouterr().out


def test_sample_is_light_and_quiet_when_nobody_reads_on():
    # What plugins load is their business.
    code = "import sys, rtpipe.cli.main as cli; cli.main(['sample']); sys.exit('rtpipe.sim' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, check=False)  # noqa: S603
    assert done.returncode == 0
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([*RTPIPE, "sample"], stdout=writer, stderr=subprocess.PIPE, check=False)  # noqa: S603
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


def test_sim_says_where_it_is_and_ends_quietly(tmp_path):
    keys = tmp_path / "keys"
    keys.write_text("one\ntwo\n")
    command = [*RTPIPE, "sim", "--port", "0", "--pace", "0", "--api-key-file", str(keys)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:  # noqa: S603
        ready = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=10)
    assert ready.startswith("rtpipe sim: ready at ws://127.0.0.1:")
    assert (process.returncode, err) == (130, "")


def test_sim_refuses_nonsense(capsys, tmp_path):
    assert main(["sim", "--port", "70000"]) == 2
    assert main(["sim", "--pace", "-1"]) == 1
    assert main(["sim", "--api-key-file", str(tmp_path / "none")]) == 1
    assert main(["sim", "--host", "192.0.2.1"]) == 1
    errors = capsys.readouterr().err
    assert "rtpipe: cannot listen at 192.0.2.1" in errors
    assert "Traceback" not in errors


def test_a_configuration_error_is_one_line(capsys, tmp_path):
    for verb in (["check"], ["plugins", "list"], ["plugins", "disable", "x"]):
        assert main([*verb, "--config", str(tmp_path / "a\x1bb.toml")]) == 1
        err = capsys.readouterr().err
        assert err.startswith("rtpipe: ")
        assert err.count("\n") == 1
        assert "\x1b" not in err


def test_every_verb_keeps_the_convention():
    for verb in cli.VERBS:
        command = cli.own(verb)
        assert command.name == verb
        assert Path(cli.__file__).with_name(f"{verb.replace('-', '_')}.py").exists()
