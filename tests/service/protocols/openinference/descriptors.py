"""Every message, enumeration and service of a module of generated messages; prints them as JSON.

Usage: descriptors.py MODULE...; a process of its own, because two modules of the same messages cannot be imported.
"""

import importlib
import json
import sys
from typing import Any


def fields_of(message: Any) -> dict[str, Any]:
    return {
        field.name: (
            field.number,
            field.type,
            field.is_repeated,
            field.message_type and field.message_type.full_name,
            field.enum_type and field.enum_type.full_name,
            field.containing_oneof and field.containing_oneof.name,
        )
        for field in message.fields
    }


def main(*modules: str) -> None:
    found: dict[str, Any] = {}

    def add(message: Any) -> None:
        found[message.full_name] = fields_of(message)
        for inner in message.nested_types:
            add(inner)

    for module in modules:
        file = importlib.import_module(module).DESCRIPTOR
        for message in file.message_types_by_name.values():
            add(message)
        for enum in file.enum_types_by_name.values():
            found[enum.full_name] = {value.name: value.number for value in enum.values}
        for service in file.services_by_name.values():
            found[service.full_name] = {
                rpc.name: (
                    rpc.input_type.full_name,
                    rpc.output_type.full_name,
                    rpc.client_streaming,
                    rpc.server_streaming,
                )
                for rpc in service.methods
            }
    print(json.dumps(found))  # noqa: T201


main(*sys.argv[1:])
