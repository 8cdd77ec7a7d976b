"""From a loaded configuration to what its stages are made of, checked as far as can be before a start."""

from rtpipe.chain.instances import StageSpec
from rtpipe.daemon.config_load import Loaded, check_doors, check_secrets
from rtpipe.daemon.listeners import check_files
from rtpipe.daemon.sealing import check_persist


def specs_of(loaded: Loaded, *, secrets_of_upstreams: bool) -> list[StageSpec]:
    """What to make of each stage. Imports plugins, reads secrets and certificates. Raises ``ConfigError``."""
    specs = []
    for stage in loaded.stages:
        plugin = stage.load_plugin()
        config: object = stage.plugin_config(plugin.config_type)
        timeout_s = None if stage.timeout_ms is None else stage.timeout_ms / 1000
        specs.append(StageSpec(stage.name, stage.plugin, plugin, config, stage.on_error, timeout_s))
    configs = {spec.name: spec.config for spec in specs}
    plugins = {spec.name: spec.plugin_type for spec in specs}
    check_secrets(loaded, configs, upstreams=secrets_of_upstreams)
    check_persist(loaded, plugins, configs)
    check_doors(loaded, plugins)
    check_files(loaded, upstreams=secrets_of_upstreams)
    return specs
