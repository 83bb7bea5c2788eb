"""OpenAI's client with a wrong key and the right one. Usage: openai_keys.py BASE_URL ENCODER TOKEN; prints JSON."""

import json
import sys

import openai


def main(base_url: str, encoder: str, token: str) -> None:
    try:
        openai.OpenAI(base_url=base_url, api_key="wrong").embeddings.create(model=encoder, input="C")
    except openai.AuthenticationError as error:
        refused = error.message
    reply = openai.OpenAI(base_url=base_url, api_key=token).embeddings.create(model=encoder, input="C")
    print(json.dumps({"refused": refused, "vectors": len(reply.data)}))  # noqa: T201


main(*sys.argv[1:])
