"""LlamaIndex's client of OpenAI's API. Usage: openai_llama_index.py BASE_URL ENCODER STRING...; prints JSON."""

import asyncio
import json
import sys

from llama_index.embeddings.openai_like import OpenAILikeEmbedding


def main(base_url: str, encoder: str, *strings: str) -> None:
    embedding = OpenAILikeEmbedding(model_name=encoder, api_base=base_url, api_key="none")
    answer = {
        "texts": embedding.get_text_embedding_batch(list(strings)),
        "query": embedding.get_query_embedding(strings[0]),
        "async": asyncio.run(embedding.aget_text_embedding_batch(list(strings))),
    }
    print(json.dumps(answer))  # noqa: T201


main(*sys.argv[1:])
