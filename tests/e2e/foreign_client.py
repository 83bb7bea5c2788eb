"""What a user of NVIDIA's tritonclient writes; a process of its own, because it brings its own `inference.*` messages.

Usage: foreign_client.py ADDRESS ENCODER STRING...; prints one JSON object.
"""

import json
import sys

import numpy as np
import tritonclient.grpc as triton


def main(address: str, encoder: str, *strings: str) -> None:
    client = triton.InferenceServerClient(address)
    text = triton.InferInput("text", [len(strings), 1], "BYTES")
    text.set_data_from_numpy(np.array([[string.encode()] for string in strings], dtype=np.object_))
    answer: dict[str, object] = {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "model_ready": client.is_model_ready(encoder),
        "stranger_ready": client.is_model_ready("stranger"),
        "server": client.get_server_metadata(as_json=True),
        "metadata": client.get_model_metadata(encoder, as_json=True),
        "config": client.get_model_config(encoder, as_json=True),
    }
    try:
        output = triton.InferRequestedOutput("embedding")
        result = client.infer(encoder, [text], outputs=[output], request_id="request-7")
        answer["embedding"] = result.as_numpy("embedding").tolist()
        response = result.get_response(as_json=True)
        answer["id"], answer["parameters"] = response["id"], response["parameters"]
    except triton.InferenceServerException as error:
        answer["error"] = [error.status(), error.message()]
    print(json.dumps(answer))  # noqa: T201


main(*sys.argv[1:])
