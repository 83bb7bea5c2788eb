"""The page at / and /metrics beside it, as programs ask for them; browsers are in tests/page."""

import gzip
import http.client
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

import birnn
from tests.e2e.server_process import MODELS, PATIENCE_SECONDS, ServerProcess, running, until
from tests.e2e.test_tokens import change

SMALL = MODELS / "smiles-small" / "1"


@pytest.fixture(scope="module", params=["0", "2"])
def server(request: pytest.FixtureRequest) -> Iterator[ServerProcess]:
    with running(SMALL, "--http-port", "0", "--frontends", request.param) as server:
        yield server


def ask(
    server: ServerProcess, path: str, *, method: str = "GET", **headers: str
) -> tuple[int, http.client.HTTPMessage, bytes]:
    connection = http.client.HTTPConnection(server.rest.removeprefix("http://"), timeout=PATIENCE_SECONDS)
    try:
        connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        reply = connection.getresponse()
        return reply.status, reply.headers, reply.read()
    finally:
        connection.close()


def test_the_page_is_the_same_for_everyone_and_guards_itself(server: ServerProcess) -> None:
    status, headers, content = ask(server, "/")
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert b"<title>birnn-serving</title>" in content
    policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["form-action"] == policy["base-uri"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["require-trusted-types-for"] == "'script'"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-opener-policy"] == headers["cross-origin-resource-policy"] == "same-origin"
    status, headers, _ = ask(server, "/page/page.js")
    assert (status, headers["content-type"]) == (200, "text/javascript; charset=utf-8")
    assert "content-security-policy" in headers
    assert ask(server, "/page/../page.js")[0] == ask(server, "/page/nothing.js")[0] == 404
    status, headers, _ = ask(server, "/", method="POST")
    assert (status, headers["allow"]) == (405, "GET")


def test_a_browser_keeps_the_page_and_asks_whether_it_has_changed(server: ServerProcess) -> None:
    _, headers, content = ask(server, "/page/page.css")
    assert headers["cache-control"] == "no-cache"
    status, again, nothing = ask(server, "/page/page.css", if_none_match=headers["etag"])
    assert (status, nothing, again["etag"]) == (304, b"", headers["etag"])
    assert ask(server, "/page/page.css", if_none_match='"other"')[2] == content
    status, head, nothing = ask(server, "/page/page.css", method="HEAD")
    assert (status, nothing, head["content-length"]) == (200, b"", str(len(content)))


def test_the_page_hears_where_grpc_is(server: ServerProcess) -> None:
    status, _, content = ask(server, "/page/server")
    assert status == 200
    assert f'"grpc_port":{server.address.rpartition(":")[2]}'.encode() in content


def calls(text: str) -> float:
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "birnn_requests_total" and sample.labels["method"] == "Encode"
    )


def test_its_metrics_are_those_of_all_processes(server: ServerProcess) -> None:
    before = calls(ask(server, "/metrics")[2].decode())
    # Connections go to different front-ends.
    for _ in range(6):
        with birnn.Client(server.address) as client:
            client.encode("CCO", encoder="smiles-small")
    until(lambda: calls(ask(server, "/metrics")[2].decode()) == before + 6)
    until(lambda: calls(server.get("/metrics")[1]) == before + 6)


def test_metrics_come_packed_to_those_who_can_unpack(server: ServerProcess) -> None:
    _, headers, content = ask(server, "/metrics", accept_encoding="deflate, gzip;q=0.5")
    assert headers["content-encoding"] == "gzip"
    assert b"\nbirnn_server_info{" in gzip.decompress(content)
    for value in ("", "gzip;q=0", "br, gzip; q=0.000"):
        _, headers, content = ask(server, "/metrics", accept_encoding=value)
        assert "content-encoding" not in headers
        assert b"\nbirnn_server_info{" in content


@pytest.mark.parametrize("front_ends", ["0", "1"])
def test_metrics_need_the_right_to_them_and_the_page_no_token(front_ends: str, tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    lab, scrape = change(path, "add", "lab"), change(path, "add", "prometheus", "--right", "metrics")
    with running(SMALL, "--http-port", "0", "--tokens", str(path), "--frontends", front_ends) as server:
        assert ask(server, "/")[0] == ask(server, "/page/page.js")[0] == 200
        assert b'"tokens":true' in ask(server, "/page/server")[2]
        assert ask(server, "/metrics")[0] == 401
        status, _, content = ask(server, "/metrics", authorization=f"Bearer {lab}")
        assert status == 403
        assert b"lacks the right `metrics`" in content
        assert ask(server, "/metrics", authorization=f"Bearer {scrape}")[0] == 200


def test_other_machines_need_a_token_for_the_metrics_of_the_port_that_is_there_for_callers() -> None:
    with running(SMALL, "--http-port", "0", "--host", "0.0.0.0", "--insecure") as server:
        status, _, content = ask(server, "/metrics")
        assert status == 403
        assert b"--describe true" in content
        assert ask(server, "/")[0] == ask(server, "/v1/models")[0] == 200
        assert server.get("/metrics")[0] == 200


def test_the_page_can_be_switched_off() -> None:
    with running(SMALL, "--http-port", "0", "--page", "false") as server:
        assert {ask(server, path)[0] for path in ("/", "/page/page.js", "/page/server", "/metrics")} == {404}
        assert ask(server, "/v1/models")[0] == 200
        assert server.get("/metrics")[0] == 200
