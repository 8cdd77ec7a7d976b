"""Read the operator's file and its drop-ins, merge them, and say where a mistake stands."""

import difflib
import os
import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from rtpipe.api.errors import ConfigError
from rtpipe.daemon import toml_positions
from rtpipe.daemon.toml_positions import Path as KeyPath

ENVIRONMENT = "RTPIPE_CONFIG"
SYSTEM_FILE = Path("/etc/rtpipe/rtpipe.toml")
DROP_INS = "conf.d"

Table = dict[str, Any]

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_TOMLLIB_PLACE = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)\Z")


def standing() -> Path | None:
    """The configuration of this machine or environment, if there is one."""
    if named := os.environ.get(ENVIRONMENT):
        return Path(named)
    return SYSTEM_FILE if SYSTEM_FILE.exists() else None


def find(path: Path | None) -> Path:
    """The file to read: *path*, else ``$RTPIPE_CONFIG``, else ``/etc/rtpipe/rtpipe.toml``."""
    if (found := path or standing()) is not None:
        return found
    raise ConfigError(
        f"no configuration: give --config FILE, set {ENVIRONMENT}, or write {SYSTEM_FILE} "
        "(`rtpipe sample` prints one to start from)"
    )


def one_line(text: str) -> str:
    """*text* with everything escaped that is not printable, so that it cannot play with a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def dotted(path: KeyPath) -> str:
    """``("upstream", 0, "a key")`` as an operator writes it: ``upstream[0]."a key"``."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            name = part if _BARE_KEY.fullmatch(part) else '"' + part.replace('"', '\\"') + '"'
            text += f".{name}" if text else name
    return text


def nearest(word: str, known: Iterable[str]) -> str:
    """`` (did you mean x?)`` when one of *known* is near, else nothing."""
    found = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean {found[0]}?)" if found else ""


@dataclass(frozen=True)
class Document:
    """One file: its text and what ``tomllib`` makes of it."""

    path: Path
    text: str = field(repr=False)
    data: Table = field(repr=False)

    @cached_property
    def lines(self) -> dict[KeyPath, int]:
        return toml_positions.positions(self.text)


class Sources:
    """The merged tables, and which file each of them came from."""

    def __init__(self, documents: list[Document]) -> None:
        self.path = documents[0].path
        self.data: Table = {}
        self._origins: dict[KeyPath, Document] = {(): documents[0]}
        for document in documents:
            self._merge(self.data, document.data, (), document)

    def _merge(self, into: Table, table: Table, path: KeyPath, document: Document) -> None:
        """Tables by key; everything else, arrays too, is replaced."""
        for key, value in table.items():
            here = (*path, key)
            if isinstance(value, dict) and isinstance(into.get(key), dict):
                self._merge(into[key], value, here, document)
                continue
            for old in [p for p in self._origins if p[: len(here)] == here]:
                del self._origins[old]
            into[key] = _copy(value)
            self._origins[here] = document

    def at(self, path: KeyPath) -> Any:
        """The value at *path*, ``None`` where there is none."""
        value: Any = self.data
        for part in path:
            try:
                value = value[part]
            except (KeyError, IndexError, TypeError):
                return None
        return value

    def place(self, path: KeyPath) -> str:
        """``file:line`` of *path*, or of the nearest table around it."""
        document = self._origins[_longest(path, self._origins)]
        return f"{document.path}:{document.lines[_longest(path, document.lines)]}"

    def line(self, path: KeyPath, what: str) -> str:
        """One printable line: where, which key, what."""
        key = dotted(path)
        return one_line(f"{self.place(path)}: {key}: {what}" if key else f"{self.place(path)}: {what}")

    def error(self, path: KeyPath, what: str) -> ConfigError:
        return ConfigError(self.line(path, what))


def _longest(path: KeyPath, known: dict[KeyPath, Any]) -> KeyPath:
    return next(path[:n] for n in range(len(path), -1, -1) if path[:n] in known)


def _copy(value: Any) -> Any:
    return {key: _copy(item) for key, item in value.items()} if isinstance(value, dict) else value


def read_all(path: Path) -> Sources:
    """Read *path* and ``conf.d/*.toml`` beside it, in name order. Raises ``ConfigError``."""
    return Sources([read(path), *(read(file) for file in drop_ins(path))])


def drop_ins(path: Path) -> list[Path]:
    """The drop-in files that belong to the configuration file *path*."""
    folder = path.parent / DROP_INS
    try:
        files = [file for file in folder.iterdir() if file.suffix == ".toml" and file.name[0] != "."]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as exc:
        raise ConfigError(one_line(f"{folder}: cannot be read ({exc.strerror})")) from None
    return sorted(files, key=lambda file: file.name)


def read(path: Path) -> Document:
    """Read one TOML file. Raises ``ConfigError`` with one line."""
    return parse(path, _text(path))


def parse(path: Path, text: str) -> Document:
    """*text*, as if it stood in the file *path*. Raises ``ConfigError`` with one line."""
    return Document(path, text, _parse(path, text))


def _text(path: Path) -> str:
    try:
        raw = path.read_bytes()
        return raw.decode("utf-8-sig")
    except FileNotFoundError:
        why = "no such file"
    except IsADirectoryError:
        why = "is a directory, not a file"
    except UnicodeDecodeError as exc:
        line = raw.count(b"\n", 0, exc.start) + 1
        raise ConfigError(one_line(f"{path}:{line}: not UTF-8 (byte 0x{raw[exc.start]:02x})")) from None
    except OSError as exc:
        why = f"cannot be read ({exc.strerror})"
    except ValueError:
        why = "is not a file name"
    raise ConfigError(one_line(f"{path}: {why}"))


def _parse(path: Path, text: str) -> Table:
    try:
        return tomllib.loads(text)
    except RecursionError:
        line, what = 1, "nested too deeply"
    except tomllib.TOMLDecodeError as exc:
        line, what = _explain(str(exc), text)
    except ValueError as exc:  # an integer of thousands of digits
        line, what = 1, str(exc)
    raise ConfigError(one_line(f"{path}:{line}: not valid TOML: {what}")) from None


def _explain(message: str, text: str) -> tuple[int, str]:
    place = _TOMLLIB_PLACE.search(message)
    if place is None:
        return 1, message
    what = message[: place.start()]
    if place[1] is None:
        return text.count("\n") + (not text.endswith("\n")), f"{what} (at the end of the file)"
    return int(place[1]), f"{what} (column {place[2]})"
