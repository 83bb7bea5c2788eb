"""The reference of HTTP, from the server's OpenAPI document."""

from collections.abc import Iterator
from typing import Any

from birnn_service.protocols.openapi import ERRORS
from deploy.documentation.markdown import cell, code, table

INTRODUCTION = """# REST API

What the HTTP port (`--http-port`) answers, from the server's own [openapi.json](../openapi.json). Guides:
[HTTP](../serving.md#http), and calls from [curl and other clients](../clients.md#curl)."""


def rest_page(document: dict[str, Any]) -> str:
    """The page of a document."""
    parts = [INTRODUCTION]
    tag = None
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if operation["tags"][0] != tag:
                tag = operation["tags"][0]
                parts.append(f"## {tag}")
            parts += _operation(f"{method.upper()} {path}", operation)
    parts += ["## Errors", table(("status", "meaning"), ((status, cell(text)) for status, text in ERRORS.items()))]
    parts.append("## Schemas")
    for name, schema in document["components"]["schemas"].items():
        parts += [f"### {name}", _properties(schema)]
    return "\n\n".join(parts) + "\n"


def _operation(title: str, operation: dict[str, Any]) -> Iterator[str]:
    yield f"### `{title}`"
    yield operation["summary"]
    if "requestBody" in operation:
        yield f"Body: {_content(operation['requestBody'])}."
    parameters = operation.get("parameters", [])
    if parameters:
        rows = [(code(each["name"]), each["in"], cell(each["description"])) for each in parameters]
        yield table(("parameter", "in", "meaning"), rows)
    replies = operation["responses"]
    yield f"Reply: {_content(replies['200'])}. {replies['200']['description']}"
    failures = sorted(status for status in replies if status != "200")
    yield f"Errors: {', '.join(failures)}, as {_content(replies[failures[0]])}."


def _content(body: dict[str, Any]) -> str:
    kinds = body.get("content", {}).items()
    return " or ".join(_type(content["schema"]) if content else code(kind) for kind, content in kinds)


def _properties(schema: dict[str, Any]) -> str:
    required = schema.get("required", ())
    rows = [
        (code(name), _type(kind), "yes" if name in required else "", cell(kind.get("description", "")))
        for name, kind in schema.get("properties", {}).items()
    ]
    return table(("field", "type", "always there", "meaning"), rows) if rows else "Any JSON object."


def _type(schema: dict[str, Any]) -> str:
    """A type in a few words."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(map(_type, schema["anyOf"]))
    if "const" in schema or "enum" in schema:
        return " or ".join(code(f'"{value}"') for value in schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "array":
        return f"array of {_type(schema['items'])}" if "items" in schema else "array"
    if "properties" in schema:
        return f"object of {', '.join(map(code, schema['properties']))}"
    kind = schema.get("type", "object")
    return " or ".join(kind) if isinstance(kind, list) else str(kind)
