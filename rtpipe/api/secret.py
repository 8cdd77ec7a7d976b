"""Secrets: written in the configuration only by reference, never shown."""

import os
from pathlib import Path

import msgspec

from rtpipe.api.errors import ConfigError


class Secret(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a secret is found: the first that is present of *credential*, *file* and *env*.

    *credential* names a file in ``$CREDENTIALS_DIRECTORY``, as systemd's ``LoadCredential`` lays it.
    """

    credential: str | None = None
    file: str | None = None
    env: str | None = None

    def reveal(self) -> str:
        """The secret itself, without surrounding white space.

        Raises ``ConfigError`` naming the places looked at when there is none, or it is empty.
        """
        for place in self._files():
            try:
                text = place.read_text().strip()
            except FileNotFoundError:
                continue
            except (OSError, ValueError) as exc:  # ValueError: not text, or no possible file name
                why = exc.strerror if isinstance(exc, OSError) else type(exc).__name__
                raise ConfigError(f"secret file {str(place)!r} cannot be read ({why})") from None
            if text:
                return text
        if self.env and (text := os.environ.get(self.env, "").strip()):
            return text
        raise ConfigError(f"no secret found in {self._places()}: provide one of them")

    def _files(self) -> list[Path]:
        folder = os.environ.get("CREDENTIALS_DIRECTORY")
        files = []
        if self.credential and folder:
            files.append(Path(folder) / self.credential)
        if self.file:
            files.append(Path(self.file))
        return files

    def _places(self) -> str:
        places = [f"{f} {getattr(self, f)!r}" for f in ("credential", "file", "env") if getattr(self, f)]
        return ", ".join(places) or "an empty reference (name credential, file or env)"
