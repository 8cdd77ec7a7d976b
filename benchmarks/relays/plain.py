"""A plain two-task relay on aiohttp, in an environment of its own."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.relays.base import Relay, environment, package_versions

SCRIPT = Path(__file__).parents[1] / "aiohttp_relay.py"


class PlainAiohttp(Relay):
    name = "aiohttp"

    def prepare(self, cache: Path, *, install: bool) -> None:
        self._python = environment(cache / "aiohttp", "aiohttp", install=install)

    def command(self, port: int, upstream_port: int, work: Path) -> tuple[Sequence[str], Mapping[str, str]]:
        url = f"ws://127.0.0.1:{upstream_port}/v1/realtime"
        # -P: the script's directory is none to import from.
        return [str(self._python), "-P", str(SCRIPT), str(port), url], {}

    def versions(self) -> Mapping[str, str]:
        return package_versions(self._python, "aiohttp")
