"""Finds the molecules of a file that are most like a given one, with FAISS.

    pip install birnn-serving faiss-cpu
    birnn serve                                   # in another shell
    python similar_molecules.py molecules.smi "CC(=O)Oc1ccccc1C(=O)O"

Vectors have a mean that all molecules share. Taking it away makes cosines tell molecules apart.
"""

import argparse

import faiss
import numpy as np
from numpy.typing import NDArray

import birnn


def read(path: str) -> list[str]:
    """The SMILES of a file, the first word of each line."""
    with open(path, encoding="utf-8") as file:
        return [line.split()[0] for line in file if line.strip()]


def unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vectors of length 1, so that an inner product is a cosine."""
    return np.ascontiguousarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def main() -> None:
    """Print the nearest molecules and their cosines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("query")
    parser.add_argument("--address", default="127.0.0.1:8001")
    parser.add_argument("--count", type=int, default=5)
    arguments = parser.parse_args()

    molecules = read(arguments.file)
    with birnn.Client(arguments.address) as client:
        vectors = client.encode(molecules, encoder="smiles")  # float32 [n, 1024]
        query = client.encode([arguments.query], encoder="smiles")
    mean = vectors.mean(axis=0)
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(unit(vectors - mean))
    cosines, rows = index.search(unit(query - mean), arguments.count)
    for cosine, row in zip(cosines[0], rows[0], strict=True):
        print(f"{cosine:.3f}  {molecules[row]}")


if __name__ == "__main__":
    main()
