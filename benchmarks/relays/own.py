"""rtpipe, with the chain that `make demo` has: every first-party plugin."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.relays.base import Relay, package_versions

DEMO = Path(__file__).parents[2] / "config" / "demo.toml"


class Rtpipe(Relay):
    name = "rtpipe"

    def command(self, port: int, upstream_port: int, work: Path) -> tuple[Sequence[str], Mapping[str, str]]:
        config = work / "rtpipe.toml"
        config.write_text(DEMO.read_text())
        (work / "conf.d").mkdir()
        (work / "conf.d" / "90-benchmark.toml").write_text(f"""\
state_dir = {json.dumps(str(work / "state"))}

[[listen]]
address = "127.0.0.1:{port}"

[[upstream]]
name = "benchmark"
kind = "sim"
url = "ws://127.0.0.1:{upstream_port}/v1/realtime"
default_model = "gpt-realtime"
""")
        command = [sys.executable, "-m", "rtpipe.cli.main", "run", "--config", str(config)]
        return command, {"RTPIPE_DEMO_KEY": self.key}

    def versions(self) -> Mapping[str, str]:
        return package_versions(sys.executable, "rtpipe-gateway", "trio", "msgspec")
