"""A real Prometheus scrapes the real server, and answers the dashboard's queries."""

import json
import re
import shutil
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml

from birnn.v1 import encoder_pb2 as pb
from birnn.v1.encoder_pb2_grpc import EncoderServiceStub
from tests.deploy.queries import ALERTS, dashboard_queries
from tests.e2e.molecules import molecules
from tests.e2e.server_process import SMILES, SMILES_ALONE, ServerProcess, running
from tests.e2e.swapping import SEQUENCES
from tests.e2e.test_tokens import change
from tests.service.engine.bundles import version_of

PROMETHEUS = shutil.which("prometheus")
LISTENING = re.compile(r"address=127\.0\.0\.1:([1-9]\d*)")
PATIENCE_SECONDS = 60

pytestmark = pytest.mark.skipif(PROMETHEUS is None, reason="prometheus is not installed (Debian: `prometheus`)")


def configuration(target: str, token: str) -> str:
    """The shipped configuration, pointed at one server and scraping every second."""
    shipped = yaml.safe_load(ALERTS.with_name("prometheus.yml").read_text(encoding="utf-8"))
    (job,) = shipped["scrape_configs"]
    shipped["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    shipped["scrape_configs"] = [
        {
            "job_name": job["job_name"],
            "authorization": {"credentials": token},
            "static_configs": [{"targets": [target]}],
        }
    ]
    shipped["rule_files"] = [str(ALERTS)]
    return yaml.safe_dump(shipped)


@contextmanager
def scraping(target: str, token: str, folder: Path) -> Iterator[str]:
    """A Prometheus that scrapes `target` with a token; gives its URL."""
    config = folder / "prometheus.yml"
    config.write_text(configuration(target, token), encoding="utf-8")
    command = [str(PROMETHEUS), f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}"]
    process = subprocess.Popen(
        [*command, "--web.listen-address=127.0.0.1:0"], stderr=subprocess.PIPE, text=True, cwd=folder
    )
    port: list[str] = []
    listening = threading.Event()

    def read_log() -> None:
        assert process.stderr is not None
        for line in process.stderr:
            if not port and (match := LISTENING.search(line)):
                port.append(match[1])
                listening.set()
        listening.set()

    reader = threading.Thread(target=read_log)
    reader.start()
    try:
        assert listening.wait(PATIENCE_SECONDS)
        assert port, "Prometheus stopped before it listened"
        yield f"http://127.0.0.1:{port[0]}"
    finally:
        process.terminate()
        process.wait()
        reader.join()


def ask(url: str, query: str) -> list[dict[str, Any]]:
    """The samples that a query gives now."""
    address = f"{url}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
    with urllib.request.urlopen(address, timeout=10) as reply:
        samples: list[dict[str, Any]] = json.load(reply)["data"]["result"]
    return samples


def models_of(folder: Path) -> Path:
    """An encoder, and another with two versions, of which one can be the other's candidate."""
    (folder / "smiles").mkdir(parents=True)
    (folder / "smiles" / str(SMILES.version)).symlink_to(SMILES_ALONE)
    for version, largest in ((1, 0.3), (2, 0.4)):
        version_of(folder, "small", version, largest)
    return folder


def send_calls(server: ServerProcess, token: str, limited: str) -> None:
    """Calls of every outcome that the dashboard tells apart: good, bad and cut items, an unknown encoder, refused."""
    good = [molecule.encode() for molecule in molecules(64)]
    odd = [b"", b"[Uuo]", b"C" * 5000]
    with grpc.insecure_channel(server.address) as channel:
        stub = EncoderServiceStub(channel)

        def call(encoder: str, sequences: list[bytes], *, truncate: bool = False, by: str = token) -> None:
            request = pb.EncodeRequest(encoder=encoder, sequences=sequences, truncate=truncate)
            stub.Encode(request, timeout=30, metadata=[("authorization", f"Bearer {by}")])

        call("smiles", good)
        call("smiles", odd)
        call("smiles", odd, truncate=True)
        call("small", SEQUENCES)
        with pytest.raises(grpc.RpcError):
            call("unknown", good)
        # Its first call may have room.
        for _ in range(2):
            with suppress(grpc.RpcError):
                call("smiles", good[:1], by=limited)


def test_every_query_of_the_dashboard_has_an_answer_from_a_scraped_server(tmp_path: Path) -> None:
    unanswered = dashboard_queries(window="10s")
    # Everything that has a panel: front-ends, a cache, a candidate.
    arguments = ["--frontends", "2", "--cache-mib", "1", "--shadow", "small/2=1", "--tokens", str(tmp_path / "tokens")]
    token = change(tmp_path / "tokens", "add", "lab")
    scraper = change(tmp_path / "tokens", "add", "prometheus", "--right", "metrics")
    limited = change(tmp_path / "tokens", "add", "bulk", "--sequences-per-second", "0.01", "--burst", "1")
    with (
        running(models_of(tmp_path / "models"), *arguments) as server,
        scraping(server.http.removeprefix("http://"), scraper, tmp_path) as url,
    ):
        deadline = time.monotonic() + PATIENCE_SECONDS
        while unanswered and time.monotonic() < deadline:
            send_calls(server, token, limited)
            time.sleep(0.5)
            unanswered = {name: query for name, query in unanswered.items() if not ask(url, query)}
        assert not unanswered
        (target,) = ask(url, 'up{job="birnn"}')
        assert target["value"][1] == "1"
        encoded = ask(url, 'sum(birnn_sequences_total{encoder="smiles"})')
        assert float(encoded[0]["value"][1]) >= 64
        assert {one["metric"]["tenant"] for one in ask(url, "birnn_tenant_requests_total")} == {"lab", "bulk"}
        # Unknown tokens were sent, and nothing else is wrong.
        firing = {alert["metric"]["alertname"] for alert in ask(url, 'ALERTS{alertstate="firing"}')}
        assert firing <= {"BirnnUnknownTokens"}
