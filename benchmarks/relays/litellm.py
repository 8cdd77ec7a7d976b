"""LiteLLM's proxy: its /v1/realtime, one worker, as its own command starts it."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.relays.base import Relay, environment, package_versions


class LiteLLM(Relay):
    name = "litellm"

    def prepare(self, cache: Path, *, install: bool) -> None:
        self._python = environment(cache / "litellm", "litellm[proxy]", install=install)

    def command(self, port: int, upstream_port: int, work: Path) -> tuple[Sequence[str], Mapping[str, str]]:
        config = work / "litellm.yaml"  # JSON is YAML
        params = {
            "model": "openai/gpt-realtime",
            "api_base": f"http://127.0.0.1:{upstream_port}",  # LiteLLM makes it ws://…/v1/realtime
            "api_key": "sk-upstream",
        }
        model = {
            "model_name": "gpt-realtime",
            "litellm_params": params,
            "model_info": {"mode": "realtime"},
        }
        settings = {
            "model_list": [model],
            "general_settings": {"master_key": self.key},
            "litellm_settings": {"telemetry": False},
        }
        config.write_text(json.dumps(settings, indent=2))
        script = str(self._python.parent / "litellm")
        command = [str(self._python), script, "--config", str(config), "--host", "127.0.0.1"]
        command += ["--port", str(port), "--num_workers", "1"]
        # Prices come with the package: nothing is fetched.
        return command, {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_MODE": "PRODUCTION"}

    def versions(self) -> Mapping[str, str]:
        return package_versions(self._python, "litellm", "uvicorn", "uvloop", "websockets")
