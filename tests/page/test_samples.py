"""The calls that the page shows do what the page did."""

import base64
import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import birnn
from tests.clients.environments import output, python_packages
from tests.clients.test_generated import GRPCURL
from tests.e2e.server_process import MODELS, ServerProcess, running
from tests.e2e.test_tokens import change
from tests.page.browser import needs_chromium
from tests.page.conftest import Open

pytestmark = needs_chromium
TEXT = 'It\'s "quoted" \\ $HOME `id` %d \t café 東京 😀'
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", params=[False, True], ids=["open", "tokens"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server, with tokens or without; with them it does not describe itself."""
    if not request.param:
        with running(MODELS / "text" / "2", "--http-port", "0") as server:
            yield server
        return
    path = tmp_path_factory.mktemp("tokens") / "tokens"
    token = change(path, "add", "both", "--right", "encode", "--right", "metrics")
    arguments = ("--http-port", "0", "--tokens", str(path), "--describe", "false")
    with running(MODELS / "text" / "2", *arguments) as server:
        server.token = token
        yield server


@pytest.fixture
def samples(server: ServerProcess, visit: Open) -> dict[str, str]:
    """What each of the tabs shows for the text."""
    tab = visit(server.rest)
    if server.token:
        tab.page.fill("#token", server.token)
        tab.page.keyboard.press("Enter")
    tab.page.fill("#sequence", TEXT)
    found = {}
    for name in ("python", "curl", "grpcurl"):
        tab.page.click(f"#tab-{name}")
        found[name] = tab.page.locator("#sample").text_content() or ""
    assert ("BIRNN_TOKEN" in found["curl"]) == bool(server.token)
    return found


@pytest.fixture
def expected(server: ServerProcess) -> NDArray[np.float32]:
    with birnn.Client(server.address, token=server.token or None) as client:
        return client.encode(TEXT, encoder="text")


def test_python(server: ServerProcess, samples: dict[str, str], expected: NDArray[np.float32]) -> None:
    code = samples["python"] + "\nprint(vectors[0].tolist())\n"
    path = os.pathsep.join(str(ROOT / root) for root in ("client", "bundle"))
    printed = output(sys.executable, "-c", code, PYTHONPATH=path, BIRNN_TOKEN=server.token)
    assert json.loads(printed.splitlines()[-1]) == pytest.approx(expected.tolist(), abs=1e-6)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed (Debian: `curl`)")
def test_curl(server: ServerProcess, samples: dict[str, str], expected: NDArray[np.float32]) -> None:
    printed = output("sh", "-ec", samples["curl"] + " --fail-with-body -sS", BIRNN_TOKEN=server.token)
    (item,) = json.loads(printed)["data"]
    assert item["embedding"] == pytest.approx(expected.tolist(), abs=1e-6)


@pytest.mark.clients("grpcurl 1.8.6", "the call that the page shows")
def test_grpcurl(server: ServerProcess, samples: dict[str, str], expected: NDArray[np.float32]) -> None:
    environment = python_packages("grpcurl", GRPCURL, constrained=False)
    path = f"{environment.place / 'bin'}{os.pathsep}{os.environ['PATH']}"
    printed = output("sh", "-ec", samples["grpcurl"], cwd=ROOT, PATH=path, BIRNN_TOKEN=server.token)
    vector = np.frombuffer(base64.b64decode(json.loads(printed)["embeddings"]), "<f4")
    np.testing.assert_allclose(vector, expected, atol=1e-6)
