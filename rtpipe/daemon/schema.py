"""The schemas: of the configuration, by which editors complete and check it, of JSON lines, and of what the
admin socket answers.
"""

import json
from collections.abc import Mapping
from typing import Any

import msgspec

from rtpipe.chain.discovery import AnyPlugin
from rtpipe.daemon import messages, metrics
from rtpipe.daemon.admin_api import OPERATIONS, SESSION, ErrorAnswer, Operation
from rtpipe.daemon.config import Config, StageTable
from rtpipe.daemon.hooks import FORGET

Json = dict[str, Any]

_REF = "#/$defs/{name}"


def schema_text(plugins: Mapping[str, AnyPlugin]) -> str:
    """The schema as the file that editors read: of the host, and of *plugins* by their names."""
    plain = msgspec.to_builtins(schema(plugins), order="deterministic")
    return json.dumps(plain, indent=2, ensure_ascii=False) + "\n"


def lines_schema_text() -> str:
    """The schema of one line of JSON lines, either way."""
    types = (*messages.ALL, *messages.PARTS)
    references, definitions = msgspec.json.schema_components(types, ref_template=_REF)
    event = {
        "type": "object",
        "description": "A Realtime event, as OpenAI documents it: a client's one way, a server's the other.",
        "properties": {"type": {"type": "string", "not": {"pattern": "^rtpipe\\."}}},
        "required": ["type"],
    }
    lines = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"rtpipe JSON lines, version {messages.VERSION}",
        "description": "One line. The first is a hello; what it may be after that stands with each message.",
        "anyOf": [*references[: len(messages.ALL)], event],
        "$defs": definitions,
    }
    plain = msgspec.to_builtins(lines, order="deterministic")
    return json.dumps(plain, indent=2, ensure_ascii=False) + "\n"


_PART = "#/components/schemas/{name}"


def admin_openapi_text() -> str:
    """The OpenAPI document of the admin socket's own routes."""
    answers = [each.answer for each in OPERATIONS.values() if each.answer is not None]
    _, parts = msgspec.json.schema_components((*answers, ErrorAnswer), ref_template=_PART)
    paths: Json = {}
    for (method, path), operation in OPERATIONS.items():
        paths.setdefault(path, {})[method.lower()] = _operation(operation)
    for path, name, place in ((SESSION, "id", "path"), (FORGET, "name", "query")):
        paths[path]["parameters"] = [
            {"name": name, "in": place, "required": True, "schema": {"type": "string"}}
        ]
    document = {
        "openapi": "3.1.0",
        "info": {
            "title": "rtpipe admin socket",
            "version": "1",
            "description": "HTTP on the Unix socket of [admin]; who may open it may ask. Plugins add routes "
            "of their own. A connection that begins with { speaks JSON lines instead, as a tap: see "
            "jsonlines.schema.json.",
        },
        "paths": paths,
        "components": {"schemas": parts},
    }
    return json.dumps(msgspec.to_builtins(document), indent=2, ensure_ascii=False) + "\n"


def _operation(operation: Operation) -> Json:
    content: Json = {metrics.CONTENT_TYPE: {"schema": {"type": "string"}}}
    if operation.answer is not None:
        content = {"application/json": {"schema": {"$ref": _PART.format(name=operation.answer.__name__)}}}
    error = {"application/json": {"schema": {"$ref": _PART.format(name=ErrorAnswer.__name__)}}}
    responses: Json = {"200": {"description": "As asked.", "content": content}}
    for status, why in operation.refusals.items():
        responses[str(status)] = {"description": why, "content": error}
    responses["default"] = {"description": "Any other refusal.", "content": error}
    return {"summary": operation.about, "responses": responses}


def schema(plugins: Mapping[str, AnyPlugin]) -> Json:
    types = [Config, StageTable, *(plugin.config_type for plugin in plugins.values())]
    references, definitions = msgspec.json.schema_components(types, ref_template=_REF)
    host, stage, *options = [definitions[_name(reference)] for reference in references]
    for reference in references:
        definitions.pop(_name(reference), None)
    tables = {name: _stage_table(stage, own) for name, own in zip(plugins, options, strict=True)}
    host["properties"]["plugins"] |= {
        "properties": tables,
        # A stage may have another name than its plugin, which only `use` tells.
        "additionalProperties": {"type": "object", "properties": stage["properties"]},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **host,
        "title": "rtpipe configuration",
        "$defs": definitions,
    }


def _stage_table(stage: Json, options: Json) -> Json:
    """One plugin's table: the host's keys and its own options. It may be a drop-in's part of a table, so
    nothing is required of it.
    """
    return {
        "type": "object",
        "description": options.get("description", ""),
        "properties": options["properties"] | stage["properties"],
        "additionalProperties": False,
    }


def _name(reference: Json) -> str:
    return str(reference["$ref"]).rpartition("/")[2]
