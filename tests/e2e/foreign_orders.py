"""What users of tritonclient write to have a server unload and load.

Usage: foreign_orders.py GRPC_ADDRESS HTTP_ADDRESS ENCODER; prints one JSON object. A process of its own, as
foreign_client.py is.
"""

import json
import sys

import tritonclient.grpc as triton
import tritonclient.http as triton_http
from tritonclient.utils import InferenceServerException


def main(grpc_address: str, http_address: str, encoder: str) -> None:
    """Give orders, over both protocols."""
    over_grpc = triton.InferenceServerClient(grpc_address)
    over_http = triton_http.InferenceServerClient(http_address)
    found: dict[str, object] = {}
    for name, client in {"grpc": over_grpc, "http": over_http}.items():
        client.unload_model(encoder)
        ready = [client.is_model_ready(encoder)]
        client.load_model(encoder)
        found[name] = [*ready, client.is_model_ready(encoder)]
        try:
            client.load_model(encoder, config="{}")
        except InferenceServerException as error:
            found[f"{name} refused"] = str(error)
    print(json.dumps(found))  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
