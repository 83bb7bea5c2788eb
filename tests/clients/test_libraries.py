"""The classes of birnn.integrations beside the libraries themselves, each installed as its extra says."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.clients.conftest import Encode, Record
from tests.clients.environments import output, python_packages, version
from tests.clients.recipes import recipe
from tests.e2e.server_process import SMILES, ServerProcess

FOREIGN = Path(__file__).parent / "foreign"
MOLECULES = ["CCO", "c1ccccc1"]
LONG = "C" * (SMILES.max_length + 50)


def assert_as_ours(answer: dict[str, Any], ours: Encode) -> None:
    """What the scripts of LangChain and LlamaIndex both tell."""
    vectors = ours(MOLECULES, "smiles")

    def agrees(numbers: Any, expected: Any) -> None:
        np.testing.assert_allclose(np.array(numbers), expected, atol=1e-5)

    assert answer["is"]
    agrees(answer["documents"], vectors)
    for one in (answer["query"], answer["pickled"], *answer["loops"]):
        agrees(one, vectors[0])
    agrees(answer["truncated"], ours(LONG[: SMILES.max_length], "smiles"))
    assert answer["version"] == ours("CCO", "smiles", 1).size != vectors.shape[1]
    assert answer["nan"] == [False, True]
    failed, message = answer["error"]
    assert failed == [1]
    assert "cannot read character" in message
    assert "within the timeout" in answer["late"]


@pytest.mark.clients("langchain-core", "embed and aembed, documents and queries")
def test_langchain(server: ServerProcess, ours: Encode, record_property: Record) -> None:
    environment = python_packages("langchain", extra="langchain")
    record_property("result", version(environment, "langchain-core"))
    answer = json.loads(output(environment.python, FOREIGN / "langchain_caller.py", server.address, LONG))
    assert_as_ours(answer, ours)
    assert answer["none"] == []
    for threads in answer["threads"]:
        np.testing.assert_allclose(np.array(threads), ours(MOLECULES, "smiles"), atol=1e-5)


@pytest.mark.clients("langchain-core", "a vector store (recipe)")
def test_langchain_recipe(server: ServerProcess) -> None:
    # numpy, which the store needs, comes with our client.
    environment = python_packages("langchain", extra="langchain")
    printed = output(environment.python, "-c", recipe("LangChain", "python", server.address))
    assert printed == "A man plays the guitar.\n"


@pytest.mark.clients("llama-index-core", "texts and queries, sync and async")
def test_llama_index(server: ServerProcess, ours: Encode, record_property: Record) -> None:
    environment = python_packages("llama-index", extra="llama-index")
    record_property("result", version(environment, "llama-index-core"))
    answer = json.loads(output(environment.python, FOREIGN / "llama_index_caller.py", server.address, LONG))
    assert_as_ours(answer, ours)
    for vectors, expected in (("async", MOLECULES), ("one", "CCO"), ("stored", "CCO")):
        np.testing.assert_allclose(np.array(answer[vectors]), ours(expected, "smiles"), atol=1e-5)
    assert answer["batch"] == [512, 7]
    assert answer["name"] == "smiles"


@pytest.mark.clients("llama-index-core", "an index (recipe)")
def test_llama_index_recipe(server: ServerProcess) -> None:
    environment = python_packages("llama-index", extra="llama-index")
    printed = output(environment.python, "-c", recipe("LlamaIndex", "python", server.address))
    assert printed == "A man plays the guitar.\n"


@pytest.mark.clients("scikit-learn", "a pipeline, tables of pandas (recipe)")
def test_scikit_learn(server: ServerProcess, record_property: Record) -> None:
    environment = python_packages("scikit-learn", "pandas==3.0.0", extra="sklearn")
    record_property("result", version(environment, "scikit-learn"))
    printed = output(environment.python, "-c", recipe("scikit-learn", "python", server.address))
    assert printed.rstrip().endswith("['smiles_0', 'smiles_1']")
