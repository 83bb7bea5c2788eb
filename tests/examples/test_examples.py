"""The examples, run as their readers run them, against a server; `make examples` installs what they need."""

import importlib.util
import json
import os
import socket
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.server_process import PATIENCE_SECONDS, ServerProcess, running, until

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"

pytestmark = pytest.mark.examples


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with running(ROOT / "models") as started:
        yield started


def needs(*modules: str) -> None:
    if missing := [module for module in modules if importlib.util.find_spec(module) is None]:
        pytest.skip(f"needs {', '.join(missing)}: `make examples` installs what examples need")


def run(*command: str | Path, **env: str) -> str:
    done = subprocess.run(
        list(map(str, command)),
        cwd=EXAMPLES,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_similar_molecules(server: ServerProcess) -> None:
    needs("faiss")
    found = run(sys.executable, "similar_molecules.py", "molecules.smi", "OCC", "--address", server.address)
    cosine, smiles = found.splitlines()[0].split()
    assert (smiles, len(found.splitlines())) == ("CCO", 5)
    assert float(cosine) > 0.7


def test_text_search(server: ServerProcess) -> None:
    needs("qdrant_client")
    found = run(
        sys.executable, "text_search.py", "sentences.txt", "A woman plays the violin.", "--address", server.address
    )
    assert "She plays the violin every evening." in found.splitlines()[0]


def test_the_notebook(server: ServerProcess, tmp_path: Path) -> None:
    needs("nbclient", "ipykernel", "rdkit", "sklearn", "matplotlib")
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(EXAMPLES / "property_model.ipynb", as_version=4)
    os.environ["BIRNN_ADDRESS"] = server.address
    try:
        NotebookClient(notebook, timeout=PATIENCE_SECONDS, resources={"metadata": {"path": EXAMPLES}}).execute()
    finally:
        del os.environ["BIRNN_ADDRESS"]
    printed = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))
    assert "r2 with birnn vectors 0." in printed


def test_the_web_app(server: ServerProcess) -> None:
    needs("fastapi", "uvicorn")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", "web_app:app", "--port", str(port)]
    process = subprocess.Popen(command, cwd=EXAMPLES, env={**os.environ, "BIRNN_ADDRESS": server.address})

    def ask(first: str, second: str) -> tuple[int, dict[str, object]]:
        query = urllib.parse.urlencode({"first": first, "second": second})
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{port}/similarity?{query}", timeout=PATIENCE_SECONDS
            ) as reply:
                return reply.status, json.load(reply)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def answers() -> bool:
        try:
            return ask("CCO", "CCO")[0] == 200
        except urllib.error.URLError:
            return False

    try:
        until(answers)
        status, same = ask("CCO", "OCC")
        assert (status, ask("CCO", "C" * 1500)[0]) == (200, 422)
        _, other = ask("CCO", "c1ccccc1")
        assert 1 > float(str(same["cosine"])) > float(str(other["cosine"]))
    finally:
        process.terminate()
        process.wait(PATIENCE_SECONDS)


def test_an_encoder_of_ones_own(tmp_path: Path) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    run("sh", "own_encoder.sh", "molecules.smi", tmp_path / "mine", PATH=path, HIDDEN="16", EPOCHS="1")
    with running(tmp_path / "mine" / "models") as server:
        assert run(
            Path(sys.executable).parent / "birnn", "encode", "CCO", "--encoder", "mine", "--address", server.address
        )


def test_a_map(server: ServerProcess, tmp_path: Path) -> None:
    program, vectors = Path(sys.executable).parent / "birnn", tmp_path / "vectors.parquet"
    run(
        program,
        "encode",
        "--file",
        "molecules.smi",
        "--out",
        vectors,
        "--encoder",
        "smiles",
        "--address",
        server.address,
    )
    run(program, "map", vectors, "--color-by", "rdkit:MolLogP", "-o", tmp_path / "map.html")
    assert "<svg" in (tmp_path / "map.html").read_text() or "<canvas" in (tmp_path / "map.html").read_text()
