"""What a user of KServe's client writes. Usage: kserve_caller.py gRPC|REST ADDRESS ENCODER STRING...; prints JSON."""

import asyncio
import json
import sys
from typing import Any

import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest
from kserve.inference_client import RESTConfig


def request(encoder: str, strings: list[str], binary: bool) -> Any:
    text = InferInput("text", [len(strings), 1], "BYTES")
    text.set_data_from_numpy(np.array([[string] for string in strings], dtype=np.object_), binary_data=binary)
    return InferRequest(model_name=encoder, infer_inputs=[text])


async def over_rest(address: str, encoder: str, strings: list[str]) -> Any:
    async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:
        replies = [await client.infer(address, request(encoder, strings, binary), encoder) for binary in (True, False)]
        states = [await client.is_server_live(address), await client.is_server_ready(address)]
        states.append(await client.is_model_ready(address, encoder))
        try:
            await client.infer(address, request(encoder, ["what is this?"], False), encoder)
        except Exception as error:
            return replies, states, str(error)


async def over_grpc(address: str, encoder: str, strings: list[str]) -> Any:
    async with InferenceGRPCClient(address) as client:
        replies = [await client.infer(request(encoder, strings, binary)) for binary in (True, False)]
        states = [await client.is_server_live(), await client.is_server_ready(), await client.is_model_ready(encoder)]
        try:
            await client.infer(request(encoder, ["what is this?"], True))
        except Exception as error:
            return replies, states, str(error)


def main(transport: str, address: str, encoder: str, *strings: str) -> None:
    call = {"REST": over_rest, "gRPC": over_grpc}[transport]
    replies, states, error = asyncio.run(call(address, encoder, list(strings)))
    vectors = [reply.outputs[0].as_numpy().tolist() for reply in replies]
    print(json.dumps({"vectors": vectors, "states": states, "error": error}))  # noqa: T201


main(*sys.argv[1:])
