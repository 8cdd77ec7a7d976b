"""What the daemon asks a chain's plugins outside sessions: their HTTP routes, and how they fare."""

from collections.abc import Mapping, Sequence

from rtpipe.api.errors import ConfigError, HookFailed, Refused
from rtpipe.api.principal import ADMIN
from rtpipe.api.request import Health, Route
from rtpipe.chain.compile import Chain
from rtpipe.chain.guard import Guard, HookCall

REALTIME = frozenset({"/v1/realtime", "/realtime", "/openai/v1/realtime", "/openai/realtime"})
SESSIONS, PLUGINS, METRICS, RELOAD, DRAIN = "/sessions", "/plugins", "/metrics", "/reload", "/drain"
FORGET = "/forget"
ADMIN_ROUTES = frozenset({SESSIONS, PLUGINS, METRICS, RELOAD, DRAIN, FORGET})
HEALTH, READINESS = "/healthz", "/readyz"
ROUTE_LIMIT_S = 10.0
_OURS = REALTIME | {HEALTH, READINESS}

PluginRoutes = Mapping[tuple[str, str], tuple[HookCall, Route]]
"""By method and path: how to call the handler, and what the plugin said about it."""


async def collect_routes(chain: Chain, guard: Guard) -> PluginRoutes:
    """Ask the ``routes`` hooks. Raises ``ConfigError`` naming the plugin for a route that is taken."""
    found: dict[tuple[str, str], tuple[HookCall, Route]] = {}
    for call in chain.calls("routes"):
        try:
            routes: Sequence[Route] = await guard.call(call)
            if not _are_routes(routes):
                raise guard.nonsense(call, routes)
        except HookFailed as exc:
            raise ConfigError(f"plugin {call.stage}: its routes cannot be had: {exc.why}") from None
        for route in routes:
            key = (route.method, route.path)
            if route.path in _OURS or (route.access == ADMIN and route.path in ADMIN_ROUTES) or key in found:
                raise ConfigError(f"plugin {call.stage}: the route {route.method} {route.path} is taken")
            name = f"route {route.path}"
            found[key] = (
                HookCall(call.stage, name, route.handler, True, ROUTE_LIMIT_S, call.on_error),
                route,
            )
    return found


def _are_routes(answer: object) -> bool:
    return isinstance(answer, list | tuple) and all(isinstance(route, Route) for route in answer)


async def ask_to_forget(chain: Chain, guard: Guard, name: str) -> list[str]:
    """What the stages that have a ``forget`` hook have erased, a line each. Raises ``HookFailed``."""
    told = []
    for call in chain.calls("forget"):
        what = await guard.call(call, name)
        if not isinstance(what, str):
            raise guard.nonsense(call, what)
        if what:
            told.append(f"{call.stage}: {what}")
    return told


async def ask_health(chain: Chain, guard: Guard) -> dict[str, Health]:
    """What the stages that have a ``health`` hook say of themselves, by their names."""
    found = {}
    for call in chain.calls("health"):
        try:
            health = await guard.call(call)
            if not isinstance(health, Health):
                raise guard.nonsense(call, health)
            found[call.stage] = health
        except (HookFailed, Refused):
            found[call.stage] = Health(ok=False, sentence="does not answer")
    return found
