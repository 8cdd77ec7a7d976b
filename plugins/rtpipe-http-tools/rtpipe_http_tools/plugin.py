"""The plugin: offers the endpoints as tools, and asks them."""

import logging
from pathlib import Path
from typing import Any, ClassVar

import httpx2
import msgspec

from rtpipe import ConfigError, Health, Host, OnError, Plugin, Session, Tool, ToolCall, tool_error
from rtpipe_http_tools import requests
from rtpipe_http_tools.config import Config, Endpoint

# Its lines have the arguments in them, and at the level debug the headers too.
for name in ("httpx2", "httpcore2"):
    logging.getLogger(name).setLevel(logging.WARNING)

CONNECTIONS = 10
"""To the endpoint of one tool."""


class HttpTools(Plugin[Config, None]):
    """Offers HTTP endpoints as tools."""

    on_error: ClassVar[OnError] = "pass"  # without it a tool is missing

    def __init__(self, config: Config, host: Host) -> None:
        super().__init__(config, host)
        self._tools = [_tool(name, endpoint) for name, endpoint in config.tools.items()]
        self._clients: dict[str, httpx2.AsyncClient] = {}

    def startup(self) -> None:
        """Read the secrets, open the pools."""
        ssl = httpx2.create_ssl_context()
        for name, endpoint in self.config.tools.items():
            self._clients[name] = httpx2.AsyncClient(
                headers=_headers(name, endpoint),
                limits=httpx2.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS),
                timeout=None,  # the host keeps the limit of the whole call
                follow_redirects=False,
                trust_env=False,  # the operator writes here where calls go, not a variable elsewhere
                verify=ssl,
            )

    async def shutdown(self) -> None:
        """Close the pools."""
        for client in self._clients.values():
            await client.aclose()

    def tools(self) -> list[Tool]:
        """The same for every session."""
        return self._tools

    async def tool_call(self, session: Session[None], call: ToolCall) -> str | None:  # noqa: ARG002
        """Ask the endpoint of this name."""
        endpoint = self.config.tools.get(call.name)
        if endpoint is None:
            return None
        client = self._clients[call.name]
        try:
            arguments = msgspec.json.decode(call.arguments, type=dict[str, Any])
            request = requests.request(client, endpoint, arguments)
        except requests.BadArgument as exc:
            return tool_error(str(exc), "now")
        try:
            response = await client.send(request, stream=True)
            try:
                return await requests.answer(response, endpoint)
            finally:
                await response.aclose()
        except (httpx2.HTTPError, httpx2.StreamError) as exc:
            # Its text may name what was asked; where it was asked is in the configuration.
            raise requests.Failed(f"its endpoint cannot be had: {type(exc).__name__}") from None

    def health(self) -> Health:
        """How many tools there are."""
        count = len(self._tools)
        return Health(ok=True, sentence=f"offers {count} {'tool' if count == 1 else 'tools'}")


def _tool(name: str, endpoint: Endpoint) -> Tool:
    return Tool(
        name=name,
        description=endpoint.description,
        parameters=_parameters(name, endpoint),
        timeout_s=endpoint.timeout_ms / 1000,
        cancellable=endpoint.method == "GET",
    )


def _parameters(name: str, endpoint: Endpoint) -> dict[str, Any]:
    if endpoint.parameters_file is None:
        schema = endpoint.parameters
    else:
        where = f"tools.{name}.parameters_file {endpoint.parameters_file!r}"
        try:
            schema = msgspec.json.decode(Path(endpoint.parameters_file).read_bytes(), type=dict[str, Any])
        except OSError as exc:
            raise ConfigError(f"{where} cannot be read ({exc.strerror})") from None
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            raise ConfigError(f"{where} is no JSON object") from None
    properties = schema.get("properties", {})
    for place in endpoint.places:
        if not isinstance(properties, dict) or place not in properties:
            raise ConfigError(f"tools.{name}.url: {{{place}}} is no property of its parameters")
    return schema


def _headers(name: str, endpoint: Endpoint) -> dict[str, str]:
    headers = {"Accept": "application/json, text/*;q=0.5", "Accept-Encoding": "identity"}
    for header, value in endpoint.headers.items():
        headers[header] = value if isinstance(value, str) else _header_value(name, header, value.reveal())
    if endpoint.bearer is not None:
        token = _header_value(name, "Authorization", endpoint.bearer.reveal())
        headers["Authorization"] = f"Bearer {token}"
    return headers


def _header_value(name: str, header: str, secret: str) -> str:
    if not (secret.isascii() and secret.isprintable()):
        raise ConfigError(f"tools.{name}: the secret for {header} has characters that a header cannot have")
    return secret
