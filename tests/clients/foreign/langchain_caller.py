"""What a user of LangChain does with our embeddings. Usage: langchain_caller.py ADDRESS LONG; prints JSON."""

import asyncio
import json
import math
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor

from langchain_core.embeddings import Embeddings

import birnn
from birnn.integrations.langchain import BirnnEmbeddings

MOLECULES = ["CCO", "c1ccccc1"]
WRONG = ["CCO", "what is this?"]


def main(address: str, long: str) -> None:
    embeddings = BirnnEmbeddings(address, encoder="smiles", batch_size=1)
    answer: dict[str, object] = {
        "is": isinstance(embeddings, Embeddings),
        "documents": embeddings.embed_documents(MOLECULES),
        "query": embeddings.embed_query("CCO"),
        "none": embeddings.embed_documents([]),
        "pickled": pickle.loads(pickle.dumps(embeddings)).embed_query("CCO"),
        # Event loops one after another, and two at the same time.
        "loops": [asyncio.run(embeddings.aembed_query("CCO")) for _ in range(2)],
        "truncated": BirnnEmbeddings(address, encoder="smiles", truncate=True).embed_query(long),
        "version": len(BirnnEmbeddings(address, encoder="smiles", version=1).embed_query("CCO")),
    }
    with ThreadPoolExecutor(2) as pool:
        loops = [pool.submit(lambda: asyncio.run(embeddings.aembed_documents(MOLECULES))) for _ in range(2)]
        answer["threads"] = [loop.result() for loop in loops]
    rows = BirnnEmbeddings(address, encoder="smiles", on_error="nan").embed_documents(WRONG)
    answer["nan"] = [any(map(math.isnan, row)) for row in rows]
    try:
        embeddings.embed_documents(WRONG)
    except birnn.SequenceError as error:
        answer["error"] = [[item.index for item in error.errors], str(error)]
    try:
        asyncio.run(BirnnEmbeddings(address, encoder="smiles", timeout=1e-6).aembed_query("CCO"))
    except birnn.DeadlineError as error:
        answer["late"] = str(error)
    print(json.dumps(answer))  # noqa: T201


main(*sys.argv[1:])
