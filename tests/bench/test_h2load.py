from pathlib import Path

import click
import pytest
from grpc_health.v1 import health_pb2

from bench.h2load import H2Load, read_log
from tests.e2e.server_process import running

MISSING = "h2load is not installed (Debian's nghttp2-client)"


def test_a_log_is_read_in_seconds_since_the_epoch(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("1000000\t200\t500000\n2000000\t200\t250000\n3000000\t200\t500000\n")
    sample = read_log(log, warmup=0.5)
    # From 1.5 to 3.5: answers at 1.5, 2.25 and 3.5, of which the first was sent before.
    assert (sample.begin, sample.seconds, sample.calls) == (1.5, 2.0, 2)
    assert sample.calls_per_second == pytest.approx(1.5)
    assert [sample.p50, sample.p99] == pytest.approx([0.25, 0.5])


@pytest.mark.parametrize(
    ("text", "message"), [("1\t503\t5\n", "HTTP status 503"), ("", "no call"), ("1\t200\t5\n", "no call began")]
)
def test_a_log_without_good_calls_is_an_error(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "log").write_text(text)
    with pytest.raises(click.ClickException, match=message):
        read_log(tmp_path / "log", warmup=1.0)


@pytest.mark.skipif(H2Load.find() is None, reason=MISSING)
def test_a_real_server_answers_the_same_message_over_and_over(tmp_path: Path) -> None:
    found = H2Load.find()
    assert found is not None
    with running() as server:
        sample = found.run(
            server.address,
            "/grpc.health.v1.Health/Check",
            health_pb2.HealthCheckRequest(),
            8,
            seconds=1.0,
            warmup=0.1,
            prefix=[],
            scratch=tmp_path / "h2load",
        )
    assert sample.calls > 0
    assert 0 < sample.p50 <= sample.p99
