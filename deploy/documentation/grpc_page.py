"""The reference of a .proto file, from its messages and comments."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

from google.protobuf.descriptor_pb2 import DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet
from grpc_tools import protoc

from deploy.documentation.markdown import cell, code, table
from deploy.documentation.pages import ROOT

# Where a descriptor keeps things, by the numbers of descriptor.proto's fields: the path of a comment is made of these.
MESSAGES, ENUMS, SERVICES = 4, 5, 6
FIELDS, NESTED_MESSAGES, NESTED_ENUMS, ENUM_VALUES, METHODS = 2, 3, 4, 2, 2

Path_ = tuple[int, ...]


def grpc_page(name: str, title: str) -> str:
    """The page of a file below protos/."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "set")
        options = ["--include_source_info", f"--descriptor_set_out={output}", f"-I{ROOT / 'protos'}", name]
        if protoc.main(["protoc", *options]):
            raise ValueError(f"protoc cannot read {name}")
        (file,) = FileDescriptorSet.FromString(output.read_bytes()).file
    comments = {
        tuple(place.path): (place.leading_comments or place.trailing_comments).strip()
        for place in file.source_code_info.location
    }
    parts = [f"# {title}", comments.get((12,), ""), f"From `protos/{name}`, package `{file.package}`."]
    for number, service in enumerate(file.service):
        path: Path_ = (SERVICES, number)
        parts += [f"## {service.name}", comments.get(path, "")]
        for place, method in enumerate(service.method):
            asked, told = (
                f"{'stream ' * streams}{code(kind.rpartition('.')[2])}"
                for kind, streams in (
                    (method.input_type, method.client_streaming),
                    (method.output_type, method.server_streaming),
                )
            )
            parts += [f"### {method.name}", f"{asked} → {told}", comments.get((*path, METHODS, place), "")]
    parts += ["## Messages"]
    for number, message in enumerate(file.message_type):
        parts += _message(message, (MESSAGES, number), comments)
    if file.enum_type:
        parts += ["## Enumerations"]
    for number, enum in enumerate(file.enum_type):
        parts += _enum(enum.name, enum, (ENUMS, number), comments)
    return "\n\n".join(part for part in parts if part) + "\n"


def _message(message: DescriptorProto, path: Path_, comments: dict[Path_, str], outer: str = "") -> Iterator[str]:
    name = outer + message.name
    yield f"### {name}"
    yield comments.get(path, "")
    rows = [
        (code(field.name), _type(field, message), cell(comments.get((*path, FIELDS, number), "")))
        for number, field in enumerate(message.field)
    ]
    yield table(("field", "type", "meaning"), rows) if rows else "No fields."
    for number, inner in enumerate(message.nested_type):
        if not inner.options.map_entry:
            yield from _message(inner, (*path, NESTED_MESSAGES, number), comments, f"{name}.")
    for number, enum in enumerate(message.enum_type):
        yield from _enum(f"{name}.{enum.name}", enum, (*path, NESTED_ENUMS, number), comments)


def _enum(name: str, enum: EnumDescriptorProto, path: Path_, comments: dict[Path_, str]) -> Iterator[str]:
    yield f"### {name}"
    yield comments.get(path, "")
    rows = [
        (code(value.name), str(value.number), cell(comments.get((*path, ENUM_VALUES, number), "")))
        for number, value in enumerate(enum.value)
    ]
    yield table(("value", "number", "meaning"), rows)


def _type(field: FieldDescriptorProto, message: DescriptorProto) -> str:
    """A type as the source writes it."""
    for inner in message.nested_type:
        if inner.options.map_entry and field.type_name.endswith(f".{inner.name}"):
            key, value = (_type(each, inner).strip("`") for each in inner.field)
            return code(f"map<{key}, {value}>")
    plain = FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()
    name = field.type_name.rpartition(".")[2] or plain
    return code(f"repeated {name}" if field.label == FieldDescriptorProto.LABEL_REPEATED else name)
