"""The configuration watched: a reload whenever its files, or the certificates it names, have changed."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import trio

from rtpipe.api.errors import ConfigError
from rtpipe.daemon.config_files import drop_ins
from rtpipe.daemon.config_load import Loaded
from rtpipe.daemon.process import Process
from rtpipe.daemon.reload import Reloader

LOOK_S: Final = 1.0
Seen = Sequence[tuple[Path, int, int, int]]


async def watch(process: Process, reloader: Reloader, loaded: Seen) -> None:
    """While ``watch`` is on, reload when something has changed and then stayed for a look. Until cancelled.

    *loaded*: what `seen` said when the configuration was loaded. Files are looked at by name: editors and
    deployments replace files and links, of which inotify tells nothing.
    """
    reloaded = before = loaded
    while True:
        await trio.sleep(LOOK_S)
        now = seen(process.generation.loaded)
        if process.config.watch and now == before != reloaded:
            with suppress(ConfigError):  # it is in the log
                await reloader.reload()
            reloaded = now
        elif not process.config.watch:
            reloaded = now
        before = now


def seen(loaded: Loaded) -> Seen:
    """What tells one state of the files from another."""
    found = []
    for file in _files(loaded):
        with suppress(OSError):
            status = file.stat()
            found.append((file, status.st_mtime_ns, status.st_size, status.st_ino))
    return found


def _files(loaded: Loaded) -> Iterator[Path]:
    yield loaded.path
    with suppress(ConfigError):  # a reload says so
        yield from drop_ins(loaded.path)
    for door in loaded.config.listen:
        if door.tls is not None:
            yield Path(door.tls.certificate)
            yield Path(door.tls.key)
