"""The OpenAPI document of what is served over HTTP."""

from collections.abc import Sequence
from typing import Any

TITLE = "birnn-serving"
JSON = "application/json"
BINARY = "application/octet-stream"
# Statuses of errors: the caller's, and those after which another try may help.
ERRORS = {
    "400": "The request is wrong; the message says what to change.",
    "401": "The server needs a token, and it is missing or unknown.",
    "403": "The token lacks the right.",
    "404": "No such encoder or version.",
    "408": "The request did not arrive in time.",
    "413": "The request is too large; split it.",
    "415": "The content encoding is not gzip.",
    "429": "The server is overloaded; Retry-After says when to try again.",
    "500": "A fault of the server.",
    "503": "The server is starting or draining, or the encoder is not ready.",
    "504": "The deadline of the caller has passed.",
}
# Beside those of every method, what calls to encoders get.
CALL_ERRORS = ("400", "404", "408", "413", "415", "429", "500", "503", "504")
TIMEOUT = {
    "name": "X-Request-Timeout",
    "in": "header",
    "description": "Seconds within which the call must be answered.",
    "schema": {"type": "string", "pattern": r"^[0-9]{1,9}(\.[0-9]{1,9})?$", "examples": ["0.5"]},
}


def document(version: str, models: Sequence[str], most: int) -> dict[str, Any]:
    """The document.

    Args:
        version: Of the server.
        models: Encoders that are served, as NAME@VERSION.
        most: Most sequences in a call.
    """
    return {
        "openapi": "3.1.0",
        "info": {
            "title": TITLE,
            "version": version,
            "summary": "Encodings of sequences: OpenAI's embeddings and the Open Inference Protocol.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "security": [{}, {"token": []}],
        "paths": {**_openai(), **_open_inference()},
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": {**_openai_schemas(models, most), **_open_inference_schemas()},
        },
    }


def _operation(
    name: str, summary: str, reply: dict[str, Any], error: str, *statuses: str, request: Any = None, **more: Any
) -> dict[str, Any]:
    errors = {
        status: {"description": ERRORS[status], "content": {JSON: {"schema": _reference(error)}}}
        for status in ("401", "403", *statuses)
    }
    for status in ("429", "503"):
        if status in errors:
            errors[status]["headers"] = {"Retry-After": {"schema": {"type": "integer"}, "description": "In seconds."}}
    body = {} if request is None else {"requestBody": {"required": True, "content": request}}
    return {"operationId": name, "summary": summary, **more, **body, "responses": {"200": reply, **errors}}


def _openai() -> dict[str, Any]:
    return {
        "/v1/embeddings": {
            "post": _operation(
                "createEmbeddings",
                "Encode strings.",
                _reply("Vectors in the order of the strings.", "EmbeddingsReply"),
                "OpenAIError",
                *CALL_ERRORS,
                request={JSON: {"schema": _reference("EmbeddingsRequest")}},
                parameters=[TIMEOUT],
                tags=["OpenAI"],
            )
        },
        "/v1/models": {
            "get": _operation(
                "listModels", "List encoders.", _reply("The encoders.", "Models"), "OpenAIError", "500", tags=["OpenAI"]
            )
        },
        "/v1/models/{model}": {
            "get": _operation(
                "getModel",
                "Describe an encoder.",
                _reply("The encoder.", "Model"),
                "OpenAIError",
                "404",
                "500",
                tags=["OpenAI"],
                parameters=[_path("model", "NAME, for its highest version, or NAME@VERSION.")],
            )
        },
    }


def _open_inference() -> dict[str, Any]:
    tags = {"tags": ["Open Inference"]}
    paths: dict[str, Any] = {
        "/v2": {
            "get": _operation(
                "serverMetadata",
                "Describe the server.",
                _reply("Name, version and extensions.", "Server"),
                "Error",
                **tags,
            )
        },
        "/v2/health/live": {"get": _health("serverLive", "Whether the engines work.", **tags)},
        "/v2/health/ready": {"get": _health("serverReady", "Whether every encoder is served.", **tags)},
    }
    name = _path("model", "Name of an encoder.")
    version = _path("version", "Its version.")
    for suffix, where, parameters in (
        ("", "/v2/models/{model}", [name]),
        ("Version", "/v2/models/{model}/versions/{version}", [name, version]),
    ):
        more = {**tags, "parameters": parameters}
        paths[where] = {
            "get": _operation(
                f"modelMetadata{suffix}",
                "Describe an encoder.",
                _reply("Inputs and outputs.", "ModelMetadata"),
                "Error",
                "404",
                **more,
            )
        }
        ready = _health(f"modelReady{suffix}", "Whether an encoder is served.", **more)
        ready["responses"]["404"] = _reply(ERRORS["404"], "Error")
        paths[f"{where}/ready"] = {"get": ready}
        paths[f"{where}/config"] = {
            "get": _operation(
                f"modelConfig{suffix}",
                "Configuration, in Triton's form.",
                _reply("The configuration.", "Any"),
                "Error",
                "404",
                **more,
            )
        }
        reply = _reply("Tensors.", "InferReply")
        reply["content"][BINARY] = {}
        reply["headers"] = {
            "Inference-Header-Content-Length": {
                "schema": {"type": "integer"},
                "description": "Bytes of JSON before the tensors that were asked for as bytes.",
            }
        }
        paths[f"{where}/infer"] = {
            "post": _operation(
                f"infer{suffix}",
                "Encode sequences.",
                reply,
                "Error",
                *CALL_ERRORS,
                request={JSON: {"schema": _reference("InferRequest")}, BINARY: {}},
                tags=tags["tags"],
                parameters=[
                    *parameters,
                    TIMEOUT,
                    {
                        "name": "Inference-Header-Content-Length",
                        "in": "header",
                        "description": "Bytes of JSON before the tensors that come as bytes.",
                        "schema": {"type": "integer", "minimum": 0},
                    },
                ],
            )
        }
    for action, summary in {
        "load": "Look for new versions and load them.",
        "unload": "Stop serving an encoder.",
    }.items():
        paths[f"/v2/repository/models/{{model}}/{action}"] = {
            "post": _operation(
                f"{action}Model",
                f"{summary} Needs the right `admin` where the server has tokens.",
                _reply("The order has been carried out.", "Any"),
                "Error",
                "400",
                "404",
                "503",
                parameters=[_path("model", "NAME, or NAME@VERSION for one version or alias.")],
                **tags,
            )
        }
    return paths


def _health(name: str, summary: str, **more: Any) -> dict[str, Any]:
    return {
        "operationId": name,
        "summary": summary,
        **more,
        "responses": {"200": _reply("The answer is yes.", "Health"), "503": _reply("The answer is no.", "Health")},
    }


def _openai_schemas(models: Sequence[str], most: int) -> dict[str, Any]:
    text, perhaps = {"type": "string"}, {"type": ["string", "null"]}
    return {
        "EmbeddingsRequest": {
            "type": "object",
            "required": ["model", "input"],
            "additionalProperties": False,
            "properties": {
                "model": {**text, "description": "NAME or NAME@VERSION.", "examples": list(models)},
                "input": {"anyOf": [text, {"type": "array", "items": text, "minItems": 1, "maxItems": most}]},
                "encoding_format": {"enum": ["float", "base64"], "default": "float"},
                "dimensions": {
                    "type": "integer",
                    "minimum": 1,
                    "description": "Must be the dimension of the encoder: vectors cannot be shortened.",
                },
                "user": {**text, "description": "Accepted and ignored."},
                "on_error": {
                    "enum": ["fail", "null"],
                    "default": "fail",
                    "description": "Whether a string that cannot be encoded fails the request or gets no embedding.",
                },
                "truncate": {"type": "boolean", "default": False, "description": "Truncate strings that are too long."},
                "tokens": {
                    "type": "boolean",
                    "default": False,
                    "description": "Add to each item the tokens that were encoded.",
                },
            },
        },
        "EmbeddingsReply": _object(
            object={"const": "list"},
            data={"type": "array", "items": _reference("Embedding")},
            model={**text, "description": "NAME@VERSION of the encoder that answered."},
            usage=_object(prompt_tokens={"type": "integer"}, total_tokens={"type": "integer"}),
        ),
        "Embedding": {
            "type": "object",
            "required": ["object", "index", "embedding"],
            "properties": {
                "object": {"const": "embedding"},
                "index": {"type": "integer"},
                "embedding": {
                    "anyOf": [
                        {"type": "array", "items": {"type": "number"}},
                        {**text, "contentEncoding": "base64", "description": "Little-endian float32 numbers."},
                        {"type": "null"},
                    ]
                },
                "error": _object(code=text, message=text),
                "tokens": {
                    "type": "array",
                    "items": _object(id={"type": "integer"}, text=text),
                    "description": "If the request asks for them.",
                },
                "unknown_tokens": {
                    "type": "integer",
                    "description": "Beside `tokens`: how many of them the encoder does not know, if any.",
                },
                "truncated_tokens": {
                    "type": "integer",
                    "description": "Beside `tokens`: how many were cut off, if any.",
                },
            },
        },
        "Model": {
            "type": "object",
            "required": ["id", "object", "created", "owned_by"],
            "properties": {
                "id": text,
                "object": {"const": "model"},
                "created": {"type": "integer"},
                "owned_by": text,
                "encoder": {
                    "type": "object",
                    "description": "Of a version, the same facts as gRPC's ListEncoders.",
                },
            },
        },
        "Models": _object(object={"const": "list"}, data={"type": "array", "items": _reference("Model")}),
        "OpenAIError": _object(error=_object(message=text, type=text, param=perhaps, code=perhaps)),
    }


def _open_inference_schemas() -> dict[str, Any]:
    text, shape = {"type": "string"}, {"type": "array", "items": {"type": "integer"}}
    parameters = {"type": "object", "additionalProperties": {"type": ["boolean", "number", "string"]}}
    tensor = _object(name=text, datatype=text, shape=shape)
    filled = {
        **tensor,
        "properties": {**tensor["properties"], "parameters": parameters, "data": {"type": "array"}},
    }
    wanted = {**_object(name=text), "properties": {"name": text, "parameters": parameters}}
    return {
        "Any": {"type": "object"},
        "Error": _object(error=text),
        "Health": {
            "type": "object",
            "properties": {"name": text, "live": {"type": "boolean"}, "ready": {"type": "boolean"}},
        },
        "Server": _object(name=text, version=text, extensions={"type": "array", "items": text}),
        "ModelMetadata": _object(
            name=text,
            versions={"type": "array", "items": text},
            platform=text,
            inputs={"type": "array", "items": tensor},
            outputs={"type": "array", "items": tensor},
        ),
        "InferRequest": {
            "type": "object",
            "required": ["inputs"],
            "properties": {
                "id": text,
                "parameters": parameters,
                "inputs": {"type": "array", "items": filled},
                "outputs": {"type": "array", "items": wanted},
            },
        },
        "InferReply": {
            "type": "object",
            "required": ["model_name", "outputs"],
            "properties": {
                "model_name": text,
                "model_version": text,
                "id": text,
                "parameters": parameters,
                "outputs": {"type": "array", "items": filled},
            },
        },
    }


def _object(**properties: Any) -> dict[str, Any]:
    """An object that has all of these."""
    return {"type": "object", "required": list(properties), "properties": properties}


def _reference(schema: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{schema}"}


def _reply(description: str, schema: str) -> dict[str, Any]:
    return {"description": description, "content": {JSON: {"schema": _reference(schema)}}}


def _path(name: str, description: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "description": description, "schema": {"type": "string"}}
