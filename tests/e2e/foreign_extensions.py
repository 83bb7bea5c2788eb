"""What users of tritonclient write beyond a call: streams, asyncio, other inputs and outputs, statistics and the index.

Usage: foreign_extensions.py ADDRESS ENCODER IDS, with IDS a JSON list of lists of token ids; prints one JSON object. A
process of its own, as foreign_client.py is.
"""

import asyncio
import json
import sys
from queue import SimpleQueue
from typing import Any

import numpy as np
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio


def tensor(name: str, values: Any, datatype: str) -> triton.InferInput:
    array: Any = np.array(values, dtype={"BYTES": np.object_, "INT32": np.int32}[datatype])
    made = triton.InferInput(name, list(array.shape), datatype)
    made.set_data_from_numpy(array)
    return made


def strings(*texts: str) -> list[triton.InferInput]:
    return [tensor("text", [[text.encode()] for text in texts], "BYTES")]


def of_result(result: triton.InferResult, *names: str) -> dict[str, Any]:
    """Type and shape of all outputs, and the values of some."""
    outputs = result.get_response().outputs
    found: dict[str, Any] = {output.name: [output.datatype, list(output.shape)] for output in outputs}
    return {"outputs": found, **{name: result.as_numpy(name).tolist() for name in names}}


def stream(client: triton.InferenceServerClient, encoder: str) -> list[Any]:
    """Replies to good requests and bad ones, in the order in which they came."""
    replies: SimpleQueue[Any] = SimpleQueue()
    client.start_stream(lambda result, error: replies.put((result, error)))
    requests = [("C" * 60, "a"), ("what is this?", "b"), ("CCO", "c"), ("", "d"), ("c1ccccc1", "e")]
    for text, number in requests:
        client.async_stream_infer(encoder, strings(text), request_id=number)
    came = [replies.get(timeout=60) for _ in requests]
    client.stop_stream()
    return [result.get_response().id if error is None else error.message() for result, error in came]


async def concurrently(address: str, encoder: str) -> list[int]:
    async with triton_aio.InferenceServerClient(address) as client:
        calls = (client.infer(encoder, strings(*["CCO"] * count)) for count in (1, 2, 3))
        return [len(result.as_numpy("embedding")) for result in await asyncio.gather(*calls)]


async def streamed(address: str, encoder: str) -> list[Any]:
    async def requests() -> Any:
        for number in "xyz":
            yield {"model_name": encoder, "inputs": strings("CCO"), "request_id": number}

    async with triton_aio.InferenceServerClient(address) as client:
        replies = client.stream_infer(requests())
        return [result.get_response().id if error is None else error.message() async for result, error in replies]


def main(address: str, encoder: str, ids: str) -> None:
    client = triton.InferenceServerClient(address)
    rows = json.loads(ids)
    packed = [
        tensor("input_ids", [number for row in rows for number in row], "INT32"),
        tensor("lengths", [len(row) for row in rows], "INT32"),
    ]
    tokens, half = [triton.InferRequestedOutput("token_embeddings")], {"element_type": "FP16"}
    answer = {
        "ids": of_result(client.infer(encoder, packed), "embedding"),
        "tokens": of_result(client.infer(encoder, packed, outputs=tokens), "token_embeddings", "lengths"),
        "half": of_result(client.infer(encoder, packed, outputs=tokens, parameters=half), "token_embeddings"),
        "stream": stream(client, encoder),
        "aio": asyncio.run(concurrently(address, encoder)),
        "aio_stream": asyncio.run(streamed(address, encoder)),
        "extensions": list(client.get_server_metadata().extensions),
        "index": client.get_model_repository_index(as_json=True)["models"],
        "statistics": client.get_inference_statistics(as_json=True)["model_stats"],
        "of_one": client.get_inference_statistics(encoder, "1", as_json=True)["model_stats"],
    }
    print(json.dumps(answer))  # noqa: T201


main(*sys.argv[1:])
