"""Orders to load and unload: Triton's and KServe's forms, over both protocols, and who may give them."""

import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from click.testing import CliRunner

from birnn.openinference import inference_pb2 as pb
from birnn.openinference.inference_pb2_grpc import GRPCInferenceServiceStub
from birnn_service.token_commands import tokens
from tests.e2e.server_process import PATIENCE_SECONDS, ServerProcess, running
from tests.e2e.swapping import CONTENTS, NAME, install, states

FOREIGN = Path(__file__).with_name("foreign_orders.py")


def post(server: ServerProcess, path: str, body: str = "", token: str = "", origin: str = "") -> tuple[int, Any]:
    """Status and JSON of a reply."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    headers |= {"Origin": origin} if origin else {}
    request = urllib.request.Request(server.rest + path, body.encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as reply:
            return reply.status, json.loads(reply.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


@pytest.fixture(scope="module", params=["0", "2"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    models = tmp_path_factory.mktemp("orders") / "models"
    install(models, CONTENTS[0], 1)
    with running(models, "--http-port", "0", "--frontends", request.param) as server:
        yield server


def test_kserves_form_names_the_model_in_the_first_field_and_gets_its_fields_back(server: ServerProcess) -> None:
    with grpc.insecure_channel(server.address) as channel:
        stub = GRPCInferenceServiceStub(channel)
        # On the wire, KServe's model_name is Triton's repository_name.
        unloaded = stub.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(repository_name=NAME))
        assert (unloaded.model_name, unloaded.isUnloaded) == (NAME, True)
        assert "READY" not in states(server).values()
        loaded = stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(repository_name=NAME))
        assert (loaded.model_name, loaded.isLoaded) == (NAME, True)
        assert states(server) == {"1": "READY"}
        with pytest.raises(grpc.RpcError, match="one repository, which has no name"):
            stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(repository_name="mine", model_name=NAME))
        with pytest.raises(grpc.RpcError, match="name a model"):
            stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest())


def test_tritons_client_loads_and_unloads(server: ServerProcess) -> None:
    command = [sys.executable, str(FOREIGN), server.address, NAME]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=PATIENCE_SECONDS)
    found = json.loads(done.stdout)
    assert (found["unloaded"], found["loaded"]) == (False, True)
    assert "leave out the parameter 'config'" in found["refused"]


def test_orders_over_http(server: ServerProcess) -> None:
    path = f"/v2/repository/models/{NAME}"
    assert post(server, f"{path}/unload", '{"parameters": {"unload_dependents": false}}') == (
        200,
        {"name": NAME, "unload": True},
    )
    (model,) = post(server, "/v2/repository/index")[1]
    assert (model["name"], model["version"]) == (NAME, "1")
    assert model["state"] in ("UNLOADING", "UNAVAILABLE")
    assert post(server, f"{path}/unload")[0] == 404
    assert post(server, f"{path}/load") == (200, {"name": NAME, "load": True})
    assert post(server, "/v2/repository/index") == (
        200,
        [{"name": NAME, "version": "1", "state": "READY", "reason": ""}],
    )
    assert post(server, f"{path}/load", '{"parameters": {"file:1/weights.bin": "AA=="}}')[0] == 400
    assert post(server, f"{path}/load", "[]")[0] == post(server, f"{path}/load", '{"other": 1}')[0] == 400
    assert post(server, "/v2/repository/models/unknown/load")[0] == 404


def test_web_pages_give_orders_only_where_they_are_listed(tmp_path: Path, server: ServerProcess) -> None:
    path = f"/v2/repository/models/{NAME}/load"
    # A page can have its visitors' browsers send this to a server on their own machines, without asking first.
    status, reply = post(server, path, origin="https://elsewhere.example")
    assert (status, "--cors-origins" in reply["error"]) == (403, True)
    assert post(server, path, origin=server.rest)[0] == 403
    assert post(server, path)[0] == 200
    assert post(server, "/v2/repository/index", origin="https://elsewhere.example")[0] == 200
    install(tmp_path / "models", CONTENTS[0], 1)
    listed = ("--http-port", "0", "--cors-origins", "https://ops.example")
    with running(tmp_path / "models", *listed) as allowing:
        assert post(allowing, path, origin="https://ops.example")[0] == 200
        assert post(allowing, path, origin="https://elsewhere.example")[0] == 403


def test_an_order_for_any_text_gets_an_answer_and_ends_no_front_end(server: ServerProcess) -> None:
    with grpc.insecure_channel(server.address) as channel:
        stub = GRPCInferenceServiceStub(channel)
        for model in ("a\0b", "\0", "\u202e@\0", "x" * 511):
            with pytest.raises(grpc.RpcError, match="there is no '"):
                stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name=model))
            with pytest.raises(grpc.RpcError, match="nothing of '"):
                stub.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name=model))
        with pytest.raises(grpc.RpcError, match="512 characters, 511 at most"):
            stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="x" * 512))
    assert post(server, "/v2/repository/models/a%00b/load")[0] == 404
    assert server.metric("birnn_frontend_restarts_total") == 0


@pytest.mark.parametrize("front_ends", ["0", "2"])
def test_with_tokens_an_order_needs_the_right_admin(tmp_path: Path, front_ends: str) -> None:
    install(tmp_path / "models", CONTENTS[0], 1)
    secrets = {}
    for name, right in {"operator": "admin", "lab": "encode"}.items():
        adding = ["add", name, "--right", right, "--tokens", str(tmp_path / "tokens")]
        secrets[name] = CliRunner().invoke(tokens, adding).stdout.strip()
    arguments = ("--http-port", "0", "--frontends", front_ends, "--tokens", str(tmp_path / "tokens"))
    with running(tmp_path / "models", *arguments) as server, grpc.insecure_channel(server.address) as channel:
        unload = GRPCInferenceServiceStub(channel).RepositoryModelUnload
        request = pb.RepositoryModelUnloadRequest(model_name=NAME)
        with pytest.raises(grpc.RpcError, match="UNAUTHENTICATED"):
            unload(request)
        with pytest.raises(grpc.RpcError, match="lacks the right `admin`"):
            unload(request, metadata=[("authorization", f"Bearer {secrets['lab']}")])
        path = f"/v2/repository/models/{NAME}/unload"
        assert post(server, path)[0] == 401
        assert post(server, path, token=secrets["lab"])[0] == 403
        assert post(server, path, token=secrets["operator"])[0] == 200
        # Operators see what there is, and may not encode.
        operator = [("authorization", f"Bearer {secrets['operator']}")]
        index = GRPCInferenceServiceStub(channel).RepositoryIndex(pb.RepositoryIndexRequest(), metadata=operator)
        assert [model.name for model in index.models] == [NAME]
        assert post(server, "/v2/repository/index", token=secrets["operator"])[0] == 200
        with pytest.raises(grpc.RpcError, match="lacks the right `encode`"):
            GRPCInferenceServiceStub(channel).ModelInfer(pb.ModelInferRequest(model_name=NAME), metadata=operator)
        with pytest.raises(grpc.RpcError, match="nothing of"):
            unload(request, metadata=[("authorization", f"Bearer {secrets['operator']}")])
