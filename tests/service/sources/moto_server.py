"""moto's S3, in a process of its own: it can be ended, and it logs a line for each request."""

import re
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

BUCKET = "models"
_STARTED = re.compile(r"Running on (http://127\.0\.0\.1:\d+)")


@dataclass
class MotoServer:
    """A server of S3 with one bucket, `models`."""

    process: subprocess.Popen[str]
    url: str

    @property
    def variables(self) -> dict[str, str]:
        """What a client needs in its environment."""
        return {
            "AWS_ENDPOINT": self.url,
            "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
        }

    def store(self, prefix: str) -> Any:
        """A place in the bucket to write to with obstore; what is written there, everybody can read."""
        from obstore.store import S3Store

        return S3Store(
            BUCKET,
            prefix=prefix,
            endpoint=self.url,
            region="us-east-1",
            access_key_id="key",
            secret_access_key="secret",
            client_options={"allow_http": True, "default_headers": {"x-amz-acl": "public-read"}},
        )

    def end(self) -> None:
        """Be gone."""
        self.process.terminate()
        self.process.wait()

    def create_bucket(self) -> None:
        """What obstore cannot do."""
        with urllib.request.urlopen(urllib.request.Request(f"{self.url}/{BUCKET}", method="PUT")) as reply:
            assert reply.status == 200


@contextmanager
def moto_server() -> Iterator[MotoServer]:
    """A server of S3 with an empty bucket; the test is skipped where moto is not installed."""
    pytest.importorskip("moto", reason="needs the extra `dev`")
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"], stderr=subprocess.PIPE, text=True
    )
    reader = None
    try:
        assert process.stderr is not None
        url = next((found[1] for line in process.stderr if (found := _STARTED.search(line))), None)
        assert url is not None, "moto did not start"
        reader = threading.Thread(target=process.stderr.read)
        reader.start()
        server = MotoServer(process, url)
        server.create_bucket()
        yield server
    finally:
        process.kill()
        process.wait()
        if reader is not None:
            reader.join()
