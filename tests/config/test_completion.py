"""``rtpipe completion``: asked of the shells themselves."""

import shutil
import subprocess

import pytest

from rtpipe.cli.main import main
from rtpipe.cli.verbs import VERBS

ASK = """
source "$0"
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
_shtab_rtpipe rtpipe "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def script(capsys, tmp_path, example):
    """A function that writes what is printed for a shell into a file; ``example`` is installed."""

    def write(shell):
        assert main(["completion", shell]) == 0
        file = tmp_path / f"completion.{shell}"
        file.write_text(capsys.readouterr().out, "utf-8")
        return file

    return write


def asked(*command, cwd=None):
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=30, cwd=cwd)  # noqa: S603
    assert not done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["che"], ["check"]),
        (["gre"], ["greet"]),  # the verb of a plugin
        (["check", "--conf"], ["--config"]),
        (["check", "--config", "complet"], ["completion.bash"]),
        (["sessions", "ki"], ["kill"]),
        (["reload", "--sock"], ["--socket"]),
    ],
)
def test_bash_completes(script, tmp_path, words, wanted):
    file = script("bash")
    assert asked("bash", "--norc", "-c", ASK, str(file), "rtpipe", *words, cwd=tmp_path) == wanted


def test_bash_knows_every_verb(script):
    assert {*VERBS, "greet"} <= set(asked("bash", "--norc", "-c", ASK, str(script("bash")), "rtpipe", ""))


@pytest.mark.skipif(not shutil.which("zsh"), reason="there is no zsh")
def test_zsh_reads_it(script):
    file = script("zsh")
    assert file.read_text("utf-8").startswith("#compdef rtpipe\n")
    asked("zsh", "-f", "-n", str(file))
    file = file.rename(file.with_name("_rtpipe"))
    load = 'fpath=("$1" $fpath); autoload -Uz compinit; compinit -u -D; print $_comps[rtpipe]'
    assert asked("zsh", "-f", "-c", load, "zsh", str(file.parent)) == ["_rtpipe"]


@pytest.mark.skipif(not shutil.which("fish"), reason="there is no fish")
def test_fish_completes(script):
    ask = 'source $argv[1]; complete -C "rtpipe gre"; complete -C "rtpipe sessions ki"'
    lines = asked("fish", "--no-config", "-c", ask, str(script("fish")))
    assert [line.split("\t")[0] for line in lines] == ["greet", "kill"]


def test_other_shells_are_refused(capsys):
    assert main(["completion", "csh"]) == 2
    assert "invalid choice: 'csh'" in capsys.readouterr().err
