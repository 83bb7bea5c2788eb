"""The crew: whatever workers do, each part is encoded once, and memory is bounded."""

import threading
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest

from birnn_bulk.bulk_encoder import Task
from birnn_bulk.crew import RETRIES, Crew, NoRoomError, WorkerLostError
from birnn_bulk.part_file import Entry
from birnn_bulk.plan import BulkError, Part


def entry_of(task: Task) -> Entry:
    part = task.part
    texts = {"plan": task.plan, "input": task.input, "input_digest": "", "encoder_digest": "", "engine": ""}
    numbers = {"part": part.number, "start": part.start, "stop": part.stop, "distinct": 0, "failed": 0, "noticed": 0}
    return Entry.model_validate({**texts, **numbers})


class FakeWorker:
    """Encodes, but ends with each of the parts in `fatal`, which it takes out of it."""

    def __init__(self, fatal: list[int]) -> None:
        self.fatal = fatal
        self.closed = False

    def call(self, method: str, *arguments: Any) -> Any:
        assert not self.closed
        (task,) = arguments
        if task.part.number in self.fatal:
            self.fatal.remove(task.part.number)
            raise WorkerLostError("killed")
        return entry_of(task)

    def close(self) -> None:
        self.closed = True


def tasks(count: int, read: list[int]) -> Iterator[Task]:
    for number in range(count):
        read.append(number)
        yield Task("plan", Part(number, 0, number, number + 1), "a.smi", pa.table({}))


@pytest.mark.parametrize("workers", [1, 3])
def test_lost_workers_are_replaced_and_their_parts_encoded(workers: int) -> None:
    fatal, started = [0, 4, 4, 7], []

    def start() -> FakeWorker:
        started.append(FakeWorker(fatal))
        return started[-1]

    with Crew(start) as crew:
        found = sorted(entry.part for entry in crew.encode(tasks(9, []), workers))
    assert found == list(range(9))
    assert not fatal
    assert 5 <= len(started) <= workers + 4
    assert all(worker.closed for worker in started)


def test_a_part_that_ends_every_worker_ends_the_job() -> None:
    with (
        Crew(lambda: FakeWorker([2] * (RETRIES + 1))) as crew,
        pytest.raises(BulkError, match=r"part 2 \(a.smi, records 3 to 3\): workers were lost 3 times in a row.*killed"),
    ):
        list(crew.encode(tasks(4, []), 1))


def test_fewer_workers_do_where_there_is_no_room() -> None:
    rooms = [FakeWorker([]), FakeWorker([])]

    def start() -> FakeWorker:
        if not rooms:
            raise NoRoomError("no room")
        return rooms.pop()

    with Crew(start) as crew:
        assert sorted(entry.part for entry in crew.encode(tasks(30, []), 5)) == list(range(30))

    with Crew(start) as crew, pytest.raises(BulkError, match="no room"):
        list(crew.encode(tasks(3, []), 2))


def test_few_parts_are_read_ahead() -> None:
    gate, read = threading.Event(), list[int]()

    class Waiting(FakeWorker):
        def call(self, method: str, *arguments: Any) -> Any:
            gate.wait()
            return super().call(method, *arguments)

    def released() -> Iterator[Task]:
        for task in tasks(50, read):
            if len(read) == 6:
                # All that three workers may have before one has ended, which this thread would wait for.
                gate.set()
            yield task

    with Crew(lambda: Waiting([])) as crew:
        entries = crew.encode(released(), 3)
        for done, _ in enumerate(entries, start=1):
            assert len(read) <= done + 6
    assert len(read) == 50


def test_a_failed_part_ends_the_job_and_its_workers() -> None:
    class Failing(FakeWorker):
        def call(self, method: str, *arguments: Any) -> Any:
            if arguments[0].part.number == 1:
                raise BulkError("disk full")
            return super().call(method, *arguments)

    workers: list[Failing] = []

    def start() -> Failing:
        workers.append(Failing([]))
        return workers[-1]

    with Crew(start) as crew, pytest.raises(BulkError, match=r"part 1 .*disk full"):
        list(crew.encode(tasks(20, []), 2))
    assert workers
    assert all(worker.closed for worker in workers)
