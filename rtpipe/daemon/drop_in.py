"""Switch a stage on or off in a drop-in of our own; the operator's file is never written."""

import contextlib
import os
import tempfile
import tomllib
from pathlib import Path

import tomli_w

from rtpipe.api.errors import ConfigError
from rtpipe.daemon import config_files
from rtpipe.daemon.config_files import DROP_INS, Document, Sources, nearest, one_line
from rtpipe.daemon.config_load import Loaded, build

FILE = "50-plugins.toml"
_HEAD = "# Written by `rtpipe plugins enable` and `disable`, which keep the keys here but not the comments.\n"


def switch(loaded: Loaded, stage: str, enabled: bool) -> Path | None:
    """Write ``enabled`` of *stage* to ``conf.d/50-plugins.toml`` beside the configuration.

    Returns the file, or ``None`` when there was nothing to change. Raises ``ConfigError`` and writes nothing
    when the stage is not in the chain, or when the result would not load.
    """
    stages = {each.name: each for each in (*loaded.stages, *loaded.disabled)}
    if stage not in stages:
        hint = nearest(stage, stages) or f': write "{stage}" into this list, at its place between the others'
        raise loaded.sources.error(("chain",), f"has no stage {stage}{hint}")
    if stages[stage].enabled == enabled:
        return None
    document = _changed(loaded.path.parent / DROP_INS / FILE, stage, enabled)
    _try_out(loaded.path, document, stage, enabled)
    try:
        _write(document.path, document.text)
    except OSError as exc:
        raise ConfigError(one_line(f"{document.path}: cannot be written ({exc.strerror})")) from None
    return document.path


def _changed(path: Path, stage: str, enabled: bool) -> Document:
    data = config_files.read(path).data if path.exists() else {}
    data.setdefault("plugins", {}).setdefault(stage, {})["enabled"] = enabled
    text = _HEAD + tomli_w.dumps(data)
    return Document(path, text, tomllib.loads(text))


def _try_out(main: Path, document: Document, stage: str, enabled: bool) -> None:
    """Load what the files would say together with *document*."""
    others = {file: config_files.read(file) for file in config_files.drop_ins(main)}
    drop_ins = sorted({**others, document.path: document}.values(), key=lambda each: each.path.name)
    result = build(Sources([config_files.read(main), *drop_ins]))
    wanted = next(each for each in (*result.stages, *result.disabled) if each.name == stage)
    if wanted.enabled != enabled:
        raise wanted.error(f"this file is read after {document.path} and decides: change it here", "enabled")
    if enabled:
        wanted.plugin_config(wanted.load_plugin().config_type)


def _write(path: Path, text: str) -> None:
    """Replace the file in one step, so that a daemon that starts now reads the old one or the new one."""
    path.parent.mkdir(exist_ok=True)
    old = path.stat() if path.exists() else None
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with open(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        # Readable for the daemon's own user, as the file before was.
        os.chmod(name, old.st_mode & 0o777 if old else 0o644)
        if old:
            with contextlib.suppress(PermissionError):
                os.chown(name, old.st_uid, old.st_gid)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
