"""What a user of tritonclient writes over HTTP. Usage: triton_http.py HOST:PORT ENCODER STRING...; prints JSON."""

import itertools
import json
import sys
from typing import Any

import numpy as np
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException


def infer(client: Any, encoder: str, strings: list[str], binary: bool, wanted: bool | None, packed: str | None) -> Any:
    text = triton.InferInput("text", [len(strings), 1], "BYTES")
    text.set_data_from_numpy(np.array([[string] for string in strings], dtype=np.object_), binary_data=binary)
    outputs = None if wanted is None else [triton.InferRequestedOutput("embedding", binary_data=wanted)]
    options = {"request_compression_algorithm": packed, "response_compression_algorithm": packed}
    result = client.infer(encoder, [text], outputs=outputs, request_id="7", **options)
    return result.get_response()["id"], result.as_numpy("embedding").tolist()


def main(address: str, encoder: str, *strings: str) -> None:
    client = triton.InferenceServerClient(address)
    answer: dict[str, object] = {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "model_ready": client.is_model_ready(encoder),
        "stranger_ready": client.is_model_ready("stranger"),
        "server": client.get_server_metadata(),
        "metadata": client.get_model_metadata(encoder),
        "config": client.get_model_config(encoder),
        "index": client.get_model_repository_index(),
        "infer": [
            infer(client, encoder, list(strings), *how)
            for how in itertools.product((True, False), (None, True, False), (None, "gzip"))
        ],
    }
    answer["statistics"] = client.get_inference_statistics(encoder)
    try:
        infer(client, encoder, ["what is this?"], True, None, None)
    except InferenceServerException as error:
        answer["error"] = [error.status(), error.message()]
    print(json.dumps(answer))  # noqa: T201


main(*sys.argv[1:])
