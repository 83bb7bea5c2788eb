"""Clients of OpenAI's embeddings, over HTTP."""

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from birnn_service.token_commands import tokens
from tests.clients.conftest import Encode, Record
from tests.clients.environments import needs_program, node_packages, output, python_packages, version
from tests.clients.recipes import recipe
from tests.e2e.server_process import MODELS, ServerProcess, running

FOREIGN = Path(__file__).parent / "foreign"
OPENAI, OPENAI_JS, LANGCHAIN, LLAMA_INDEX = "3.57.0", "7.59.0", "1.7.4", "0.4.0"
MOLECULES = ["CCO", "c1ccccc1"]
ADVICE = "check_embedding_ctx_length=False"


def assert_ours(numbers: Any, ours: Encode, *strings: str) -> None:
    np.testing.assert_allclose(np.array(numbers), ours(list(strings), "smiles"), atol=1e-5)


def call(environment: Any, script: str, server: ServerProcess, *arguments: str) -> Any:
    return json.loads(output(environment.python, FOREIGN / script, f"{server.rest}/v1", "smiles", *arguments))


@pytest.fixture
def answer(server: ServerProcess) -> Any:
    """What the script of OpenAI's client tells."""
    return call(python_packages("openai", f"openai=={OPENAI}", "numpy"), "openai_caller.py", server, *MOLECULES)


@pytest.mark.clients(f"openai {OPENAI}", "embeddings, sync and async, float and base64; models")
def test_openai(answer: Any, ours: Encode) -> None:
    assert_ours(answer["plain"], ours, *MOLECULES)
    assert_ours(answer["float"], ours, *MOLECULES)
    assert_ours([np.frombuffer(base64.b64decode(row), "<f4") for row in answer["base64"]], ours, *MOLECULES)
    assert_ours([answer["one"]], ours, "CCO")
    for vectors in answer["async"]:
        assert_ours(vectors, ours, *MOLECULES[: len(vectors)])
    assert answer["usage"] == 3 + 8
    assert {"smiles", "smiles@1", "smiles@2", "text"} <= set(answer["models"])
    assert answer["model"] == "smiles@2"
    assert answer["extra"] == 1


@pytest.mark.clients(f"openai {OPENAI}", "errors: NotFoundError, BadRequestError")
def test_openai_s_errors(answer: Any) -> None:
    kind, message, _ = answer["unknown"]
    assert (kind, "no encoder 'stranger'" in message) == ("NotFoundError", True)
    kind, message, field = answer["wrong"]
    assert (kind, field) == ("BadRequestError", "input")
    assert "input[1]: cannot read character" in message
    kind, message, _ = answer["ids"]
    assert (kind, ADVICE in message) == ("BadRequestError", True)


@pytest.mark.clients(f"openai {OPENAI}", "RateLimitError, and retries after Retry-After")
def test_openai_waits_as_it_is_told(record_property: Record) -> None:
    environment = python_packages("openai", f"openai=={OPENAI}", "numpy")
    with running(MODELS, "--http-port", "0", "--max-calls", "1") as server:
        answer = call(environment, "openai_retries.py", server)
    assert "--max-calls" in answer["message"]
    assert answer["retry_after"] > 0
    # It would have begun with half a second of its own.
    assert set(answer["waited"]) == {answer["retry_after"]}
    assert answer["vectors"] == 1
    record_property("result", f"waited {answer['retry_after']:g} s")


@pytest.mark.clients(f"openai {OPENAI}", "AuthenticationError; a token as api_key")
def test_a_token_is_a_key(tmp_path: Path) -> None:
    environment = python_packages("openai", f"openai=={OPENAI}", "numpy")
    added = CliRunner().invoke(tokens, ["add", "lab", "--tokens", str(tmp_path / "tokens")])
    with running(MODELS, "--http-port", "0", "--tokens", str(tmp_path / "tokens")) as server:
        answer = call(environment, "openai_keys.py", server, added.stdout.strip())
    assert "token" in answer["refused"]
    assert answer["vectors"] == 1


@pytest.mark.clients(f"openai {OPENAI}", "likeness of sentences (recipe)")
def test_openai_recipe(server: ServerProcess) -> None:
    environment = python_packages("openai", f"openai=={OPENAI}", "numpy")
    assert output(environment.python, "-c", recipe("openai", "python", http=server.rest)) == "True\n"


@pytest.mark.clients(f"langchain-openai {LANGCHAIN}", "OpenAIEmbeddings, sync and async; the advice without its option")
def test_langchain(server: ServerProcess, ours: Encode) -> None:
    environment = python_packages("langchain-openai", f"langchain-openai=={LANGCHAIN}", "numpy")
    answer = call(environment, "openai_langchain.py", server, *MOLECULES)
    assert_ours(answer["documents"], ours, *MOLECULES)
    assert_ours(answer["async"], ours, *MOLECULES)
    assert_ours([answer["query"]], ours, "CCO")
    assert ADVICE in answer["error"]


@pytest.mark.clients(f"langchain-openai {LANGCHAIN}", "a vector store (recipe)")
def test_langchain_recipe(server: ServerProcess) -> None:
    environment = python_packages("langchain-openai", f"langchain-openai=={LANGCHAIN}", "numpy")
    printed = output(environment.python, "-c", recipe("LangChain over OpenAI's API", "python", http=server.rest))
    assert printed == "A man plays the guitar.\n"


@pytest.mark.clients(f"llama-index-embeddings-openai-like {LLAMA_INDEX}", "texts and queries, sync and async")
def test_llama_index(server: ServerProcess, ours: Encode, record_property: Record) -> None:
    name = "llama-index-embeddings-openai-like"
    environment = python_packages("llama-index-openai", f"{name}=={LLAMA_INDEX}", constrained=False)
    record_property("result", f"llama-index-embeddings-openai {version(environment, 'llama-index-embeddings-openai')}")
    answer = call(environment, "openai_llama_index.py", server, *MOLECULES)
    assert_ours(answer["texts"], ours, *MOLECULES)
    assert_ours(answer["async"], ours, *MOLECULES)
    assert_ours([answer["query"]], ours, "CCO")


@pytest.mark.clients(f"llama-index-embeddings-openai-like {LLAMA_INDEX}", "an index (recipe)")
def test_llama_index_recipe(server: ServerProcess) -> None:
    name = "llama-index-embeddings-openai-like"
    environment = python_packages("llama-index-openai", f"{name}=={LLAMA_INDEX}", constrained=False)
    printed = output(environment.python, "-c", recipe("LlamaIndex over OpenAI's API", "python", http=server.rest))
    assert printed == "A man plays the guitar.\n"


def call_from_node(server: ServerProcess, how: str, modules: Path = FOREIGN) -> Any:
    script, base_url = FOREIGN / "openai.js", f"{server.rest}/v1"
    return json.loads(output("node", script, how, base_url, "smiles", *MOLECULES, NODE_PATH=str(modules)))


@pytest.mark.clients("Node's fetch", "/v1/embeddings")
def test_fetch(server: ServerProcess, ours: Encode, record_property: Record) -> None:
    needs_program("node", "nodejs")
    answer = call_from_node(server, "fetch")
    assert_ours(answer["vectors"], ours, *MOLECULES)
    assert "input[0]: cannot read character" in answer["error"]
    record_property("result", output("node", "--version").strip())


@pytest.mark.clients(f"openai {OPENAI_JS} for Node", "embeddings")
def test_openai_for_node(server: ServerProcess, ours: Encode) -> None:
    modules = node_packages("node-openai", f"openai@{OPENAI_JS}")
    answer = call_from_node(server, "openai", modules)
    assert_ours(answer["vectors"], ours, *MOLECULES)
    assert answer["error"].startswith("400 ")
    assert "input[0]: cannot read character" in answer["error"]
