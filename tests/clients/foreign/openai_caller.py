"""What a user of OpenAI's client writes. Usage: openai_caller.py BASE_URL ENCODER STRING...; prints JSON."""

import asyncio
import json
import sys
from typing import Any

import openai


def failure(client: openai.OpenAI, **asked: Any) -> list[Any]:
    try:
        client.embeddings.create(**asked)
    except openai.APIStatusError as error:
        return [type(error).__name__, error.message, error.param]
    return []


async def concurrently(base_url: str, encoder: str, strings: list[str]) -> list[Any]:
    async with openai.AsyncOpenAI(base_url=base_url, api_key="none") as client:
        replies = await asyncio.gather(
            *(client.embeddings.create(model=encoder, input=strings[:count]) for count in (1, 2, 2, 1))
        )
    return [[item.embedding for item in reply.data] for reply in replies]


def main(base_url: str, encoder: str, *strings: str) -> None:
    client = openai.OpenAI(base_url=base_url, api_key="none", max_retries=0)
    create = client.embeddings.create
    answer = {
        # Without a word this client asks for base64.
        "plain": [item.embedding for item in create(model=encoder, input=strings).data],
        "float": [item.embedding for item in create(model=encoder, input=strings, encoding_format="float").data],
        "base64": [item.embedding for item in create(model=encoder, input=strings, encoding_format="base64").data],
        "one": create(model=encoder, input=strings[0]).data[0].embedding,
        "async": asyncio.run(concurrently(base_url, encoder, list(strings))),
        "usage": create(model=encoder, input=strings).usage.total_tokens,
        "models": [model.id for model in client.models.list()],
        "model": client.models.retrieve(f"{encoder}@2").id,
        "extra": len(create(model=encoder, input="C" * 5000, extra_body={"truncate": True}).data),
        "unknown": failure(client, model="stranger", input="C"),
        "wrong": failure(client, model=encoder, input=["C", "what is this?"]),
        "ids": failure(client, model=encoder, input=[1, 2, 3]),
    }
    print(json.dumps(answer))  # noqa: T201


main(*sys.argv[1:])
