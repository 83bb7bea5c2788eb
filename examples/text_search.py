"""Searches sentences by meaning, with Qdrant in memory.

pip install birnn-serving qdrant-client
birnn serve                                   # in another shell
python text_search.py sentences.txt "a musician plays"
"""

import argparse
from pathlib import Path

from qdrant_client import QdrantClient
from qdrant_client.models import Distance, PointStruct, VectorParams

import birnn


def main() -> None:
    """Print the nearest sentences and their cosines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("query")
    parser.add_argument("--address", default="127.0.0.1:8001")
    parser.add_argument("--count", type=int, default=3)
    arguments = parser.parse_args()

    sentences = arguments.file.read_text(encoding="utf-8").splitlines()
    store = QdrantClient(":memory:")
    with birnn.Client(arguments.address) as client:
        size = client.encoder("text").dimension
        store.create_collection("sentences", VectorParams(size=size, distance=Distance.COSINE))
        # `stream` keeps the order, and holds a part of the vectors at a time, however many there are.
        numbered = enumerate(sentences)
        for part in client.stream(sentences, encoder="text"):
            points = [
                PointStruct(id=number, vector=vector.tolist(), payload={"sentence": sentence})
                for vector, (number, sentence) in zip(part.vectors, numbered, strict=False)
            ]
            store.upsert("sentences", points)
        query = client.encode([arguments.query], encoder="text")[0]
    for found in store.query_points("sentences", query=query.tolist(), limit=arguments.count).points:
        print(f"{found.score:.3f}  {found.payload['sentence']}")


if __name__ == "__main__":
    main()
