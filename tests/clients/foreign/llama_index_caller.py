"""What a user of LlamaIndex does with our embedding. Usage: llama_index_caller.py ADDRESS LONG; prints JSON."""

import asyncio
import json
import math
import pickle
import sys

from llama_index.core.base.embeddings.base import BaseEmbedding

import birnn
from birnn.integrations.llama_index import BirnnEmbedding

MOLECULES = ["CCO", "c1ccccc1"]
WRONG = ["CCO", "what is this?"]


def main(address: str, long: str) -> None:
    embedding = BirnnEmbedding(address, encoder="smiles", client_options={"batch_size": 1})
    answer: dict[str, object] = {
        "is": isinstance(embedding, BaseEmbedding),
        "documents": embedding.get_text_embedding_batch(MOLECULES),
        "one": embedding.get_text_embedding("CCO"),
        "query": embedding.get_query_embedding("CCO"),
        "stored": BirnnEmbedding.from_dict(embedding.to_dict()).get_query_embedding("CCO"),
        "pickled": pickle.loads(pickle.dumps(embedding)).get_query_embedding("CCO"),
        "loops": [
            asyncio.run(embedding.aget_query_embedding("CCO")),
            asyncio.run(embedding.aget_text_embedding("CCO")),
        ],
        "async": asyncio.run(embedding.aget_text_embedding_batch(MOLECULES)),
        "truncated": BirnnEmbedding(address, encoder="smiles", truncate=True).get_query_embedding(long),
        "version": len(BirnnEmbedding(address, encoder="smiles", version=1).get_query_embedding("CCO")),
        "batch": [
            embedding.embed_batch_size,
            BirnnEmbedding(address, encoder="x", embed_batch_size=7).embed_batch_size,
        ],
        "name": embedding.model_name,
    }
    rows = BirnnEmbedding(address, encoder="smiles", on_error="nan").get_text_embedding_batch(WRONG)
    answer["nan"] = [any(map(math.isnan, row)) for row in rows]
    try:
        embedding.get_text_embedding_batch(WRONG)
    except birnn.SequenceError as error:
        answer["error"] = [[item.index for item in error.errors], str(error)]
    try:
        asyncio.run(BirnnEmbedding(address, encoder="smiles", timeout=1e-6).aget_query_embedding("CCO"))
    except birnn.DeadlineError as error:
        answer["late"] = str(error)
    print(json.dumps(answer))  # noqa: T201


main(*sys.argv[1:])
