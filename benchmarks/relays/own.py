"""rtpipe, with the chain that `make demo` has, and the same behind tracing."""

import json
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.relays.base import Relay, package_versions

DEMO = Path(__file__).parents[2] / "config" / "demo.toml"


class Rtpipe(Relay):
    name = "rtpipe"
    more = ""
    """What else the configuration says."""

    def chain(self) -> list[str]:
        return list(tomllib.loads(DEMO.read_text())["chain"])

    def command(self, port: int, upstream_port: int, work: Path) -> tuple[Sequence[str], Mapping[str, str]]:
        config = work / "rtpipe.toml"
        config.write_text(DEMO.read_text())
        (work / "conf.d").mkdir()
        (work / "conf.d" / "90-benchmark.toml").write_text(f"""\
chain = {json.dumps(self.chain())}
state_dir = {json.dumps(str(work / "state"))}

[[listen]]
address = "127.0.0.1:{port}"

[[upstream]]
name = "benchmark"
kind = "sim"
url = "ws://127.0.0.1:{upstream_port}/v1/realtime"
default_model = "gpt-realtime"

{self.more}
""")
        command = [sys.executable, "-m", "rtpipe.cli.main", "run", "--config", str(config)]
        return command, {"RTPIPE_DEMO_KEY": self.key}

    def versions(self) -> Mapping[str, str]:
        return package_versions(sys.executable, "rtpipe-gateway", "trio", "msgspec")


class RtpipeTraced(Rtpipe):
    name = "rtpipe-traced"
    # Nobody takes the traces: what that costs is the worse case.
    more = '[plugins.tracing]\nendpoint = "http://127.0.0.1:9"\nmetrics_interval_s = 1.0\n'

    def chain(self) -> list[str]:
        return ["tracing", *super().chain()]
