"""A whole comparison, of ours with itself: the other servers are too heavy for a test."""

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import pytest

from bench.h2load import H2Load
from bench.loads import LOADS as LOADS_BY_NAME
from bench.loads import Load
from bench.peers.comparison import ASYNCIO, BARE, CALLS, EMPTY, REPEATED, Comparison, nearest
from bench.peers.costs import PARTS
from bench.peers.observation import own_shares, rows_of_batches
from bench.peers.ours import Ours
from bench.peers.records import Records
from bench.peers.server import Command, Settings, free_port, running
from birnn_bundle.bundle import Bundle
from tests.e2e.molecules import chains
from tests.e2e.server_process import MODELS

# Named as loads for which settings are searched.
LOADS = [Load("bulk", 2, 2), Load("lone", 1, 1)]


@dataclass(frozen=True)
class Searched(Ours):
    """Ours, with settings to search."""

    name: str = "searched"

    def candidates(self, cores: int) -> Sequence[Settings]:
        return [{"number": 1}, {"number": 2}]


@dataclass(frozen=True)
class Broken(Ours):
    """A server that ends at once."""

    name: str = "broken"

    def prepare(self, bundle: Bundle, settings: Settings, cores: int, scratch: Path) -> Command:
        return Command([sys.executable, "-c", "import sys; sys.exit('no such model')"], f"127.0.0.1:{free_port()}")


@pytest.fixture
def comparison(tmp_path: Path) -> Comparison:
    cores = sorted(os.sched_getaffinity(0))
    return Comparison(
        bundle=Bundle.load(MODELS / "smiles" / "1"),
        sequences=[sequence.decode() for sequence in chains(64, 20)],
        server_cores=cores,
        client_cores=cores,
        records=Records(tmp_path / "report"),
        perf_analyzer=None,
        asyncio=True,
        h2load=H2Load.find(),
        window=0.4,
        scratch=tmp_path,
    )


@pytest.mark.slow
def test_servers_are_measured_in_turn_with_the_settings_that_were_found(comparison: Comparison) -> None:
    comparison.search([Searched()], LOADS[:1])
    comparison.rounds(1, [Ours(), Searched()], LOADS)
    records = comparison.records.all()
    assert [record.settings for record in records if record.phase == "search"] == [{"number": 1}, {"number": 2}]
    measured = [record for record in records if record.phase == "round"]
    front = [EMPTY, REPEATED] if comparison.h2load else []
    assert [(record.server, record.generator) for record in measured] == [
        (BARE, "in process"),
        *(("ours", generator) for generator in [ASYNCIO, ASYNCIO, *front]),
        *(("searched", generator) for generator in [ASYNCIO, ASYNCIO, *front]),
    ]
    assert all(record.sample is not None and record.sample.calls > 0 for record in measured)
    ours = measured[1]
    # The callers hold different sequences, so that nothing could be computed once for two of them.
    assert ours.facts["shared"] == 0
    assert 0 <= ours.facts["padding"] < 1
    assert all(ours.facts[name] > 0 for name in ("server_us", "server_cores", "batch_rows", *PARTS))
    assert "--models" in ours.command


def test_a_server_that_does_not_start_is_recorded_with_what_it_said(comparison: Comparison) -> None:
    comparison.rounds(1, [Broken()], LOADS[:1])
    (record,) = comparison.records.all()
    assert record.sample is None
    assert record.error is not None
    assert "no such model" in record.error


def test_a_server_is_not_measured_with_settings_that_nobody_searched(comparison: Comparison) -> None:
    with pytest.raises(click.ClickException, match="run the search first"):
        comparison.rounds(1, [Searched()], LOADS[:1])


def test_a_server_and_what_it_started_are_gone_afterwards(tmp_path: Path) -> None:
    child = tmp_path / "child"
    script = (
        "import subprocess, sys; from bench.peers.ours import Ours; "
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); "
        f"open({str(child)!r}, 'w').write(str(child.pid)); "
        "from birnn.cli.main import main; main(sys.argv[1:])"
    )
    command = Ours().prepare(Bundle.load(MODELS / "smiles" / "1"), {}, 1, tmp_path)
    arguments = [sys.executable, "-c", script, *command.arguments[3:]]
    with running(Command(arguments, command.address, command.environment), "smiles", [], tmp_path / "log"):
        pid = int(child.read_text())
        os.kill(pid, 0)
    end = time.monotonic() + 10
    while runs(pid):
        assert time.monotonic() < end, "the server's child goes on"
        time.sleep(0.05)


def runs(pid: int) -> bool:
    """Whether a process is there and no zombie, which nobody here could reap."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_load_that_was_not_searched_takes_the_settings_of_the_nearest_one() -> None:
    known = list(LOADS_BY_NAME.values())
    assert nearest(Load("sweep", 1, 1), known).name == "lone"
    assert nearest(Load("sweep", 1, 2), known).name == "lone"
    assert nearest(Load("sweep", 1, 16), known).name == "many"
    assert nearest(Load("sweep", 1, 128), known).name == "many"
    assert nearest(Load("sweep", 16, 1), known).name == "bulk"


def test_shares_follow_from_what_rose_between_two_looks_at_the_metrics() -> None:
    before = {"birnn_tokens_total": 100.0, "birnn_padded_tokens_total": 50.0, "birnn_sequences_total": 10.0}
    after = {
        "birnn_tokens_total": 190.0,
        "birnn_padded_tokens_total": 60.0,
        "birnn_sequences_total": 16.0,
        "birnn_shared_sequences_total": 2.0,
    }
    assert own_shares(before, after) == {"padding": pytest.approx(0.1), "shared": pytest.approx(0.25)}
    assert own_shares({}, {}) == {}


def test_the_size_of_batches_follows_from_what_rose() -> None:
    before = {"birnn_batch_sequences_sum": 10.0, "birnn_batch_sequences_count": 5.0}
    after = {"birnn_batch_sequences_sum": 40.0, "birnn_batch_sequences_count": 9.0}
    assert rows_of_batches(before, after) == pytest.approx(7.5)
    assert rows_of_batches(after, after) == 0


@pytest.mark.slow
def test_our_server_is_also_called_over_streams_and_http(comparison: Comparison) -> None:
    comparison.rounds(1, [Ours.variant("plain")], [Load("bulk", 2, 2)])
    measured = comparison.records.all()
    assert [record.error for record in measured] == [None] * len(measured)
    assert {record.generator for record in measured} >= CALLS.keys()
