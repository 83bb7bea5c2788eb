"""What users of tritonclient write to have a server unload and load.

Usage: foreign_orders.py ADDRESS ENCODER; prints one JSON object. A process of its own, as
foreign_client.py is.
"""

import json
import sys

import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException


def main(address: str, encoder: str) -> None:
    """Give orders."""
    client = triton.InferenceServerClient(address)
    found: dict[str, object] = {}
    client.unload_model(encoder)
    found["unloaded"] = client.is_model_ready(encoder)
    client.load_model(encoder)
    found["loaded"] = client.is_model_ready(encoder)
    try:
        client.load_model(encoder, config="{}")
    except InferenceServerException as error:
        found["refused"] = str(error)
    print(json.dumps(found))  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
