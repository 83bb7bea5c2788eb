"""Requests over HTTP that are mutations of good ones: each is answered or refused, and the server goes on."""

import base64
import gzip
import http.client
import json
import random
import struct
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from tests.chaos.http_calls import Request, connect
from tests.chaos.outcomes import Outcomes, attack
from tests.chaos.probes import probing
from tests.chaos.processes import resident
from tests.chaos.test_streams import mutated
from tests.e2e.molecules import molecules
from tests.e2e.server_process import MODELS, ServerProcess, running

ROUNDS, CALLERS, IN_ROUND = 26, 4, 100
WIDTH = 512
# Of tokens; there are more.
IDS = 40
# What a server of all shipped encoders takes, a few batches more or less; with a front-end there are two processes.
GROWTH_MIB = 64
REFUSALS = {400, 404, 413, 415, 429, 504}
ODD: list[Any] = [
    *(
        None,
        True,
        False,
        0,
        1,
        -1,
        2**31,
        2**63,
        -(2**63),
        1.5,
        1e300,
        "",
        "0",
        "CCO",
        "x" * 5000,
        "\0",
        "\u202e\U0001f600",
    ),
    *([], {}, [[]], [[[]]], [None], {"": {}}, [1, "a"], {"text": ["C"]}),
]


def embeddings(source: random.Random, strings: list[str]) -> Request:
    """What clients of OpenAI's send."""
    texts = source.sample(strings, source.randrange(1, 5))
    value: dict[str, Any] = {"model": model(source), "input": texts if source.random() < 0.7 else texts[0]}
    for name, choices in (
        ("encoding_format", ["float", "base64"]),
        ("truncate", [True, False]),
        ("on_error", ["fail", "null"]),
        ("dimensions", [WIDTH]),
        ("user", ["me"]),
    ):
        if source.random() < 0.3:
            value[name] = source.choice(choices)
    return Request("/v1/embeddings", value)


def inference(source: random.Random, strings: list[str]) -> Request:
    """What clients of the Open Inference Protocol send: strings or ids, as JSON or, in part or all, as bytes."""
    count = source.randrange(1, 5)
    if source.random() < 0.7:
        texts = source.sample(strings, count)
        raw = b"".join(struct.pack("<I", len(text)) + text.encode() for text in texts)
        nested = source.random() < 0.5
        data: list[Any] = [[text] for text in texts] if nested else list(texts)
        tensors = [("text", "BYTES", [count, 1] if nested else [count], data, raw)]
    else:
        lengths = [source.randrange(1, 30) for _ in range(count)]
        ids = [source.randrange(IDS) for _ in range(sum(lengths))]
        tensors = [
            (name, "INT32", [len(numbers)], numbers, np.array(numbers, "<i4").tobytes())
            for name, numbers in (("input_ids", ids), ("lengths", lengths))
        ]
    inputs, tail = [], b""
    for name, datatype, shape, values, raw in tensors:
        tensor: dict[str, Any] = {"name": name, "datatype": datatype, "shape": shape}
        if source.random() < 0.5:
            tensor["data"] = values
        else:
            tensor["parameters"] = {"binary_data_size": len(raw)}
            tail += raw
        inputs.append(tensor)
    value: dict[str, Any] = {"inputs": inputs}
    if source.random() < 0.3:
        value["id"] = str(source.randrange(1000))
    if source.random() < 0.3:
        value["parameters"] = {source.choice(["truncate", "binary_data_output"]): source.random() < 0.5}
    if source.random() < 0.3:
        value["outputs"] = [{"name": "embedding", "parameters": {"binary_data": source.random() < 0.5}}]
    version = source.choice(["", "", "/versions/1"])
    return Request(f"/v2/models/{model(source)}{version}/infer", value, tail=tail)


def model(source: random.Random) -> str:
    """The encoder to ask; seldom one that there is not."""
    return source.choice(["smiles-small"] * 39 + ["nothing"])


def twist(source: random.Random, value: Any) -> None:
    """Put something odd in the place of one part of a JSON value, or twice what is there."""
    while True:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        if not keys:
            return
        key = source.choice(keys)
        if isinstance(value[key], dict | list) and value[key] and source.random() < 0.7:
            value = value[key]
            continue
        if isinstance(value[key], list) and source.random() < 0.3:
            value[key] = value[key] * 2
        else:
            value[key] = source.choice(ODD)
        return


def written(source: random.Random, request: Request) -> tuple[str, bytes, dict[str, str]]:
    """A request as it is sent, in a quarter of all cases mutated in its values and in another one in its bytes."""
    headers, path, kind = dict(request.headers), request.path, source.randrange(4)
    if kind == 0:
        twist(source, request.value)
    text = json.dumps(request.value, ensure_ascii=source.random() < 0.5).encode()
    if request.tail or source.random() < 0.1:
        size = len(text) if source.random() < 0.97 else source.choice([0, 1, len(text) + 1, 10**13, -1, "x"])
        headers["Inference-Header-Content-Length"] = str(size)
    body = text + request.tail
    if kind == 1:
        body = mutated(source, mutated(source, body) or b" ")
    if source.random() < 0.1:
        headers["Content-Encoding"] = source.choice(["gzip"] * 9 + ["br"])
        body = gzip.compress(body, 1)
        if kind == 1:
            body = mutated(source, body)
    if source.random() < 0.05:
        headers["X-Request-Timeout"] = source.choice(["60", "60.5", "0.000001", "0", "-1", "soon", "9" * 40])
    if source.random() < 0.01:
        path = path.replace("s", source.choice(["%00", "%ff", "%2f", "%ed%a0%80", "//", "%"]), 1)
    return path, body, headers


def assert_well_formed(path: str, reply: http.client.HTTPResponse, content: bytes) -> None:
    """An answer holds what it says it holds."""
    if path.startswith("/v1"):
        for item in json.loads(content)["data"]:
            vector = item["embedding"]
            if isinstance(vector, str):
                vector = np.frombuffer(base64.b64decode(vector), "<f4")
            assert vector is None or (len(vector) == WIDTH and np.isfinite(vector).all())
        return
    size = reply.getheader("Inference-Header-Content-Length")
    (output,) = json.loads(content if size is None else content[: int(size)])["outputs"]
    numbers = output["data"] if size is None else np.frombuffer(content[int(size) :], "<f4")
    assert output["shape"][1] == WIDTH
    assert len(numbers) == output["shape"][0] * WIDTH
    assert np.isfinite(numbers).all()


def send_some(
    connection: http.client.HTTPConnection, source: random.Random, strings: list[str], outcomes: Outcomes
) -> None:
    for _ in range(IN_ROUND):
        path, body, headers = written(source, source.choice([embeddings, inference])(source, strings))
        try:
            connection.request("POST", path, body, headers)
            reply = connection.getresponse()
            content = reply.read()
        except TimeoutError:
            outcomes.count("hung")
            raise
        if reply.status == 200:
            assert_well_formed(path, reply, content)
            outcomes.count("answered")
        else:
            outcomes.count("refused" if reply.status in REFUSALS else "wrong")
            assert reply.status in REFUSALS, (reply.status, content, path, headers, body)
            assert json.loads(content)["error"]


def last_is_answered(server: ServerProcess) -> None:
    connection = connect(server)
    connection.request("POST", "/v1/embeddings", json.dumps({"model": "smiles-small", "input": "CCO"}))
    assert connection.getresponse().status == 200
    connection.close()


@pytest.mark.parametrize("frontends", ["0", "1"])
def test_mutated_requests_are_answered_or_refused(frontends: str) -> None:
    strings = molecules(500)
    with (
        running(MODELS, "--http-port", "0", "--frontends", frontends) as server,
        attack(f"mutated requests over HTTP, {frontends} front-ends") as outcomes,
        probing(server) as probes,
        ThreadPoolExecutor(CALLERS) as threads,
    ):
        callers = [(connect(server), random.Random(number)) for number in range(CALLERS)]
        sizes = []
        for _ in range(ROUNDS):
            sent = [threads.submit(send_some, *caller, strings, outcomes) for caller in callers]
            for some in sent:
                some.result()
            last_is_answered(server)
            sizes.append(resident(server))
        assert outcomes.sent == ROUNDS * CALLERS * IN_ROUND
        assert outcomes.answered >= outcomes.sent / 2
        assert server.metric("birnn_unexpected_errors_total") == 0
        assert max(sizes[ROUNDS // 2 :]) - max(sizes[: ROUNDS // 2]) < GROWTH_MIB, sizes
        outcomes.note = f"{sizes[0]:.0f} to {sizes[-1]:.0f} MiB"
    outcomes.assert_unharmed()
    probes.assert_lively()
