"""The pages of the reference that are made from code, by their place on the site."""

import json
from importlib.metadata import version
from typing import Any

from birnn_service.protocols.openapi import document
from deploy.documentation.grpc_page import grpc_page
from deploy.documentation.rest_page import rest_page
from deploy.documentation.settings_page import settings_page

# What mkdocs-click and mkdocstrings fill in.
COMMANDS = """# Commands

::: mkdocs-click
    :module: birnn.cli.main
    :command: main
    :prog_name: birnn
    :style: plain
    :depth: 1
"""
PYTHON = """# Python API

What `import birnn` offers. How to use it is in [Python client](../client.md).

::: birnn
    options:
      show_root_toc_entry: false
"""


def reference() -> dict[str, str]:
    """The Markdown of each page."""
    description: dict[str, Any] = document(version("birnn-serving"), ["smiles@2"], 16_384)
    return {
        "reference/commands.md": COMMANDS,
        "reference/settings.md": settings_page(),
        "reference/python.md": PYTHON,
        "reference/grpc.md": grpc_page("birnn/v1/encoder.proto", "gRPC API (birnn.v1)"),
        "reference/open-inference.md": grpc_page("birnn/openinference/inference.proto", "Open Inference Protocol"),
        "reference/rest.md": rest_page(description),
        "openapi.json": json.dumps(description, indent=1),
    }
