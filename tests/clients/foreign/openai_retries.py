"""What OpenAI's client does where there is no room. Usage: openai_retries.py BASE_URL ENCODER; prints JSON.

The server takes one call at a time, and one whose request never ends has that place until its connection is closed.
"""

import json
import socket
import sys
import time
from urllib.parse import urlsplit

import openai

UNFINISHED = b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n"


def main(base_url: str, encoder: str) -> None:
    address = urlsplit(base_url)
    holder = socket.create_connection((address.hostname, address.port))
    holder.sendall(UNFINISHED)
    refused, answer = None, {}
    client = openai.OpenAI(base_url=base_url, api_key="none", max_retries=0)
    while refused is None:
        try:
            client.embeddings.create(model=encoder, input="C")
        except openai.RateLimitError as error:
            refused = error
    answer["message"] = refused.message
    answer["retry_after"] = float(refused.response.headers["retry-after"])
    waited: list[float] = []
    pause = time.sleep

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        holder.close()
        pause(seconds)

    # The client's own, between its tries.
    openai._base_client.time.sleep = sleep
    reply = client.with_options(max_retries=20).embeddings.create(model=encoder, input="C")
    print(json.dumps({**answer, "waited": waited, "vectors": len(reply.data)}))  # noqa: T201


main(*sys.argv[1:])
