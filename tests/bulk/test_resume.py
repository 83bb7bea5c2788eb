"""Whatever is missing of an output, the next run puts back, and nothing else is done."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from birnn.cli.main import main
from birnn_bulk import run
from birnn_bulk.bulk_encoder import BulkEncoder, Job, Task
from tests.bulk.jobs import content, molecules
from tests.service.engine.bundles import small_bundle

FILES, ROWS, PART_ROWS = 3, 25, 10
PARTS = FILES * 3


@pytest.fixture(scope="module")
def encoded() -> Iterator[list[int]]:
    """Numbers of the parts that were encoded, by workers of this process: others would take a second each to start."""
    numbers: list[int] = []

    class WorkerHere:
        def __init__(self, job: Job) -> None:
            self.encoder = BulkEncoder(job)

        def call(self, method: str, *arguments: Any) -> Any:
            numbers.extend(task.part.number for task in arguments if isinstance(task, Task))
            return getattr(self.encoder, method)(*arguments)

        def close(self) -> None:
            pass

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "ProcessWorker", WorkerHere)
        yield numbers


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The folder of an output, and the arguments of its job."""
    folder = tmp_path_factory.mktemp("job")
    encoder = small_bundle(folder).path
    (folder / "in").mkdir()
    for number in range(FILES):
        text = "\n".join(molecules(FILES * ROWS)[number * ROWS : (number + 1) * ROWS])
        (folder / "in" / f"{number}.smi").write_text(text + "\n")
    out = folder / "out"
    arguments = ["bulk", folder / "in", "-o", out, "--encoder", encoder, "--part-rows", PART_ROWS]
    return out, list(map(str, arguments))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=15)
@given(st.sets(st.integers(0, PARTS - 1)), st.sets(st.integers(0, PARTS - 1)), st.booleans(), st.integers(1, 3))
def test_a_run_does_what_is_missing_and_nothing_else(
    job: tuple[Path, list[str]],
    encoded: list[int],
    missing: set[int],
    damaged: set[int],
    unfinished: bool,
    workers: int,
) -> None:
    out, arguments = job
    runner = CliRunner()
    # The output of the example before; each ends as it began.
    assert runner.invoke(main, arguments).exit_code == 0
    before = content(out)
    assert pq.read_table(out / "parts").column("sequence").to_pylist() == molecules(FILES * ROWS)
    for number in missing | damaged:
        path = out / "parts" / f"part-{number:06}.parquet"
        if number in damaged:
            path.write_bytes(before[f"parts/{path.name}"][: -1 - number * 50])
        else:
            path.unlink()
    if unfinished:
        (out / "manifest.json").unlink()
        (out / "dead-letters.csv").unlink()
    encoded.clear()
    assert runner.invoke(main, [*arguments, "--workers", str(workers)]).exit_code == 0
    assert sorted(encoded) == sorted(missing | damaged)
    assert content(out) == before
