"""What a user of tritonclient's asyncio client writes. Usage: triton_aio.py ADDRESS ENCODER STRING...; prints JSON."""

import asyncio
import json
import sys

import numpy as np
import tritonclient.grpc.aio as triton


async def main(address: str, encoder: str, *strings: str) -> None:
    async with triton.InferenceServerClient(address) as client:
        text = triton.InferInput("text", [len(strings), 1], "BYTES")
        text.set_data_from_numpy(np.array([[string.encode()] for string in strings], dtype=np.object_))
        calls = [client.infer(encoder, [text], request_id=str(number)) for number in range(8)]
        results = await asyncio.gather(*calls)
    print(json.dumps([result.as_numpy("embedding").tolist() for result in results]))  # noqa: T201


asyncio.run(main(*sys.argv[1:]))
