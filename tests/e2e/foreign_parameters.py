"""What tritonclient says of requests with parameters; a process of its own, as foreign_client.py is.

Usage: foreign_parameters.py ADDRESS ENCODER STRING CASES, where CASES is a JSON list of {"infer": arguments of `infer`,
"output": arguments of InferRequestedOutput, "shared": whether the input is said to be in shared memory}; prints a JSON
list: the first number of the encoding, or status and message of the error.
"""

import json
import sys
from typing import Any

import numpy as np
import tritonclient.grpc as triton


def outcome(client: triton.InferenceServerClient, encoder: str, string: str, case: dict[str, Any]) -> object:
    text = triton.InferInput("text", [1, 1], "BYTES")
    if case.get("shared"):
        text.set_shared_memory("region", 64)
    else:
        text.set_data_from_numpy(np.array([[string.encode()]], dtype=np.object_))
    output = triton.InferRequestedOutput("embedding", **case.get("output", {}))
    try:
        result = client.infer(encoder, [text], outputs=[output], **case.get("infer", {}))
    except triton.InferenceServerException as error:
        return [error.status(), error.message()]
    return float(result.as_numpy("embedding")[0, 0])


def main(address: str, encoder: str, string: str, cases: str) -> None:
    client = triton.InferenceServerClient(address)
    print(json.dumps([outcome(client, encoder, string, case) for case in json.loads(cases)]))  # noqa: T201


main(*sys.argv[1:])
