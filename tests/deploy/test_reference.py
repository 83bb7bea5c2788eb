"""The reference names everything that it is made from."""

import pytest

from birnn.v1 import encoder_pb2
from birnn_service.protocols.openapi import document
from birnn_service.setting_types import ENV_PREFIX
from birnn_service.settings import Settings
from deploy.documentation.reference import reference

PAGES = reference()


@pytest.mark.parametrize("name", Settings.model_fields)
def test_each_setting_is_described(name: str) -> None:
    page = PAGES["reference/settings.md"]
    assert page.count(f"| `--{name.replace('_', '-')}`<br>`{ENV_PREFIX}{name.upper()}` |") == 1


def test_each_message_field_and_method_is_described() -> None:
    page = PAGES["reference/grpc.md"]
    for service in encoder_pb2.DESCRIPTOR.services_by_name.values():
        assert all(f"\n### {method.name}\n" in page for method in service.methods)
    for message in encoder_pb2.DESCRIPTOR.message_types_by_name.values():
        section = page.partition(f"\n### {message.name}\n")[2].partition("\n### ")[0]
        assert all(f"| `{field.name}` |" in section for field in message.fields)


def test_each_path_and_schema_is_described() -> None:
    page, described = PAGES["reference/rest.md"], document("1", ["smiles@1"], 8)
    assert all(f"### `{method.upper()} {path}`" in page for path, of in described["paths"].items() for method in of)
    assert all(f"\n### {name}\n" in page for name in described["components"]["schemas"])
