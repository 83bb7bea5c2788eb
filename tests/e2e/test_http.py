"""OpenAI's embeddings and the Open Inference Protocol over HTTP, with a real server."""

import base64
import gzip
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from numpy.typing import NDArray

from birnn.v1 import encoder_pb2 as pb
from birnn.v1.encoder_pb2_grpc import EncoderServiceStub
from tests.e2e.molecules import molecules
from tests.e2e.server_process import MODELS, PATIENCE_SECONDS, SMILES_ALONE, ServerProcess, running


@pytest.fixture(scope="module", params=["0", "2"])
def server(request: pytest.FixtureRequest) -> Iterator[ServerProcess]:
    with running(MODELS, "--http-port", "0", "--frontends", request.param) as server:
        yield server


def send(server: ServerProcess, path: str, body: Any = None, **headers: str) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of a reply; a body that is no bytes is sent as JSON."""
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    request = urllib.request.Request(server.rest + path, data, {"Content-Type": "application/json", **headers})
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as reply:
            return reply.status, dict(reply.headers.items()), reply.read()
    except urllib.error.HTTPError as error:
        return error.code, dict(error.headers.items()), error.read()


def ask(server: ServerProcess, path: str, body: Any = None, **headers: str) -> Any:
    status, _, content = send(server, path, body, **headers)
    assert status == 200, content
    return json.loads(content)


def over_grpc(server: ServerProcess, strings: list[str], encoder: str = "smiles") -> NDArray[np.float32]:
    with grpc.insecure_channel(server.address) as channel:
        request = pb.EncodeRequest(encoder=encoder, sequences=[text.encode() for text in strings])
        reply = EncoderServiceStub(channel).Encode(request, timeout=PATIENCE_SECONDS)
    return np.frombuffer(reply.embeddings, "<f4").reshape(reply.shape)


@pytest.mark.parametrize("form", ["float", "base64"])
def test_embeddings_are_those_of_grpc(server: ServerProcess, form: str) -> None:
    strings = molecules(200)
    asked = {"model": "smiles@2", "input": strings, "encoding_format": form}
    reply = ask(server, "/v1/embeddings", asked)
    assert (reply["object"], reply["model"]) == ("list", "smiles@2")
    assert [item["index"] for item in reply["data"]] == list(range(200))
    rows = [item["embedding"] for item in reply["data"]]
    if form == "base64":
        rows = [np.frombuffer(base64.b64decode(row), "<f4") for row in rows]
    assert np.abs(np.array(rows, np.float32) - over_grpc(server, strings)).max() < 1e-5
    assert reply["usage"]["prompt_tokens"] == reply["usage"]["total_tokens"] > 200


def test_a_body_may_be_packed(server: ServerProcess) -> None:
    body = gzip.compress(json.dumps({"model": "smiles", "input": "CCO"}).encode())
    assert len(ask(server, "/v1/embeddings", body, **{"Content-Encoding": "gzip"})["data"]) == 1
    bomb = gzip.compress(b" " * (64 << 20))
    status, _, content = send(server, "/v1/embeddings", bomb, **{"Content-Encoding": "gzip"})
    assert status == 413, content
    assert b"--max-message-mib" in content


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"{", 400, "JSON"),
        ({"model": "smiles"}, 400, "`input` must be a string"),
        ({"model": "nothing", "input": "C"}, 404, "no encoder 'nothing'"),
        ({"model": "smiles@9", "input": "C"}, 404, "no version '9'"),
        ({"model": "smiles", "input": [[1, 2, 3]]}, 400, "check_embedding_ctx_length=False"),
        ({"model": "smiles", "input": "C", "dimensions": 64}, 400, "leave `dimensions` out"),
        ({"model": "smiles", "input": ["C", "", "?"]}, 400, "input[1]"),
        ({"model": "smiles", "input": "C", "inputs": 1}, 400, "did you mean 'input'"),
        ({"model": "smiles", "input": ["C"] * 20_000}, 400, "--max-sequences"),
    ],
)
def test_errors_come_in_openais_form(server: ServerProcess, body: Any, status: int, words: str) -> None:
    found, headers, content = send(server, "/v1/embeddings", body, **{"X-Request-Id": "order 7"})
    assert found == status, content
    assert words in json.loads(content)["error"]["message"]
    assert headers["x-request-id"] == "order 7"


def test_items_may_fail_alone(server: ServerProcess) -> None:
    reply = ask(server, "/v1/embeddings", {"model": "smiles", "input": ["C", "", "CC"], "on_error": "null"})
    assert [item["embedding"] is None for item in reply["data"]] == [False, True, False]
    assert reply["data"][1]["error"]["code"] == "empty"


def test_models_are_listed_by_name_and_version(server: ServerProcess) -> None:
    names = [model["id"] for model in ask(server, "/v1/models")["data"]]
    assert {"smiles", "smiles@1", "smiles@2", "text@2"} <= set(names)
    assert ask(server, "/v1/models/smiles@2")["id"] == "smiles@2"
    assert send(server, "/v1/models/smiles@7")[0] == 404


def test_versions_say_what_they_are(server: ServerProcess) -> None:
    by_id = {model["id"]: model for model in ask(server, "/v1/models")["data"]}
    told = by_id["smiles@2"]["encoder"]
    assert (told["name"], told["version"], told["dimension"], told["tokenizer"]) == ("smiles", "2", 1024, "smiles")
    assert (told["precision"], told["device"], told["ready"]) == ("float32", "cpu", True)
    assert "encoder" not in by_id["smiles"]
    assert ask(server, "/v1/models/smiles")["encoder"] == told


def test_a_call_may_ask_for_tokens(server: ServerProcess) -> None:
    reply = ask(server, "/v1/embeddings", {"model": "smiles", "input": ["CCO", "[Xx]C"], "tokens": True})
    tokens = [item["tokens"] for item in reply["data"]]
    assert [token["text"] for token in tokens[0]] == ["C", "C", "O"]
    assert [item.get("unknown_tokens") for item in reply["data"]] == [None, 1]
    assert [len(item) for item in tokens] == [3, 2]
    # The ids are those that Open Inference takes.
    ids = {"name": "input_ids", "datatype": "INT32", "shape": [3], "data": [token["id"] for token in tokens[0]]}
    lengths = {"name": "lengths", "datatype": "INT32", "shape": [1], "data": [3]}
    (output,) = ask(server, "/v2/models/smiles/infer", infer([ids, lengths]))["outputs"]
    assert np.abs(np.array(output["data"]) - np.array(reply["data"][0]["embedding"])).max() < 1e-5


def infer(inputs: list[dict[str, Any]], **fields: Any) -> dict[str, Any]:
    return {"inputs": inputs, **fields}


def text(strings: list[str]) -> dict[str, Any]:
    return {"name": "text", "datatype": "BYTES", "shape": [len(strings), 1], "data": strings}


@pytest.mark.parametrize("path", ["/v2/models/smiles/infer", "/v2/models/smiles/versions/2/infer"])
def test_inference_gives_the_encodings_of_grpc(server: ServerProcess, path: str) -> None:
    strings = molecules(50)
    expected = over_grpc(server, strings)
    reply = ask(server, path, infer([text(strings)], id="7"))
    (output,) = reply["outputs"]
    assert (reply["id"], reply["model_name"], reply["model_version"]) == ("7", "smiles", "2")
    assert (output["name"], output["datatype"], output["shape"]) == ("embedding", "FP32", [50, 1024])
    assert np.abs(np.array(output["data"], np.float32).reshape(50, 1024) - expected).max() < 1e-5
    _, headers, content = send(server, path, infer([text(strings)], parameters={"binary_data_output": True}))
    size = int(headers["inference-header-content-length"])
    assert np.abs(np.frombuffer(content[size:], "<f4").reshape(50, 1024) - expected).max() < 1e-5


def test_the_protocol_describes_itself(server: ServerProcess) -> None:
    assert ask(server, "/v2")["name"] == "birnn-serving"
    assert ask(server, "/v2/health/live") == {"live": True}
    assert ask(server, "/v2/health/ready") == {"ready": True}
    assert ask(server, "/v2/models/smiles")["outputs"] == [
        {"name": "embedding", "datatype": "FP32", "shape": [-1, 1024]}
    ]
    assert ask(server, "/v2/models/smiles/config")["max_batch_size"] == 16_384
    assert ask(server, "/v2/models/smiles/versions/2/ready") == {"name": "smiles", "ready": True}
    status, _, content = send(server, "/v2/models/nothing/ready")
    # Without a list of what there is: it needs no token.
    assert (status, json.loads(content)) == (404, {"error": "there is no such encoder"})
    assert {model["name"] for model in ask(server, "/v2/repository/index", {})} >= {"smiles", "text"}
    ask(server, "/v2/models/smiles/infer", infer([text(["C"])]))
    (found,) = ask(server, "/v2/models/smiles/versions/2/stats")["model_stats"]
    assert found["inference_stats"]["success"]["count"] >= 1
    assert "/v1/embeddings" in ask(server, "/openapi.json")["paths"]


def test_errors_come_in_the_form_of_the_protocol(server: ServerProcess) -> None:
    status, _, content = send(server, "/v2/models/smiles/infer", infer([text(["C"])], parameters={"truncat": True}))
    assert (status, list(json.loads(content))) == (400, ["error"])
    assert send(server, "/v2/models/smiles/nothing")[0] == 404
    status, headers, _ = send(server, "/v2/models/smiles/infer")
    assert (status, headers["allow"]) == (405, "POST")


def test_a_call_ends_with_its_time(server: ServerProcess) -> None:
    strings = ["C" * 900 + string for string in molecules(100)]
    body = {"model": "smiles", "input": strings, "truncate": True}
    status, _, content = send(server, "/v1/embeddings", body, **{"X-Request-Timeout": "0.001"})
    assert status in (429, 504), content
    assert send(server, "/v1/embeddings", body, **{"X-Request-Timeout": "soon"})[0] == 400


def test_calls_are_counted_by_their_method(server: ServerProcess) -> None:
    labels = {"encoder": "smiles-small", "method": "POST /v1/embeddings", "code": "OK"}
    before = server.metric("birnn_requests_total", **labels)
    ask(server, "/v1/embeddings", {"model": "smiles-small", "input": "CCO"})
    # Front-ends report twice a second.
    while server.metric("birnn_requests_total", **labels) == before:
        pass
    assert server.metric("birnn_requests_total", **labels) == before + 1


def test_pages_may_call_only_where_they_are_listed() -> None:
    with running(SMILES_ALONE, "--http-port", "0", "--cors-origins", "https://app.example") as server:
        _, headers, _ = send(server, "/v1/models", Origin="https://app.example")
        assert headers["access-control-allow-origin"] == "https://app.example"
        _, headers, _ = send(server, "/v1/models", Origin="https://other.example")
        assert "access-control-allow-origin" not in headers


def test_tokens_that_no_reply_may_hold_are_refused() -> None:
    with running(SMILES_ALONE, "--http-port", "0", "--max-reply-mib", "1") as server:
        body = {"model": "smiles", "input": ["C" * 1000] * 100, "tokens": True, "encoding_format": "base64"}
        status, _, content = send(server, "/v1/embeddings", body)
        assert status == 400
        assert "--max-reply-mib" in json.loads(content)["error"]["message"]


def test_a_shutdown_finishes_calls_and_closes_the_port() -> None:
    with running(SMILES_ALONE, "--http-port", "0") as server:
        ask(server, "/v1/embeddings", {"model": "smiles", "input": "CCO"})
        server.terminate()
        assert server.ended() == 0
        with pytest.raises(urllib.error.URLError):
            send(server, "/v1/models")
