"""LangChain's client of OpenAI's API. Usage: openai_langchain.py BASE_URL ENCODER STRING...; prints JSON."""

import asyncio
import json
import sys

import openai
import tiktoken
from langchain_openai import OpenAIEmbeddings


def main(base_url: str, encoder: str, *strings: str) -> None:
    options = {"model": encoder, "base_url": base_url, "api_key": "none"}
    embeddings = OpenAIEmbeddings(**options, check_embedding_ctx_length=False)
    answer: dict[str, object] = {
        "documents": embeddings.embed_documents(list(strings)),
        "query": embeddings.embed_query(strings[0]),
        "async": asyncio.run(embeddings.aembed_documents(list(strings))),
    }
    # By default it sends ids of a tokenizer that it fetches from the network. Here bytes are ids.
    tiktoken.get_encoding = lambda name: tiktoken.Encoding(
        name, pat_str=r".", mergeable_ranks={bytes([byte]): byte for byte in range(256)}, special_tokens={}
    )
    try:
        OpenAIEmbeddings(**options).embed_documents(list(strings))
    except openai.BadRequestError as error:
        answer["error"] = error.message
    print(json.dumps(answer))  # noqa: T201


main(*sys.argv[1:])
