"""A generator in made-up time, beside servers whose answers are known."""

import asyncio

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from birnn_loadtest.arrivals import Process, Rate
from birnn_loadtest.check import Sample
from birnn_loadtest.generator import Generator
from birnn_loadtest.recorder import GIVEN_UP, NOT_SENT_FULL, NOT_SENT_LATE, Recorder, Recording
from birnn_loadtest.schedule import Schedule
from birnn_loadtest.timer import Timer
from tests.loadtest.virtual_time import ONE, Queue, VirtualClock, recorded, run


def schedule(rate: float, seconds: float = 10, gaps: str = "constant", warmup: float = 0) -> Schedule:
    return Schedule(Process(Rate(rate, rate), gaps), ONE, warmup, seconds, 0)  # type: ignore[arg-type]


@settings(max_examples=20)
@given(rate=st.floats(1, 300), service=st.floats(1e-4, 0.1))
def test_calls_are_sent_when_they_are_due_however_slow_the_server_is(rate: float, service: float) -> None:
    server = Queue([service])
    recording = recorded(schedule(rate, 5, "poisson"), server, timeout=1e6)
    due = [call.due for call in schedule(rate, 5, "poisson").calls()]
    np.testing.assert_allclose(server.sent, due, atol=1e-6)
    assert recording.lag.count == len(due)
    assert recording.lag.count == 0 or recording.lag.maximum < 1e-5


def test_a_stall_shows_in_full() -> None:
    # A call is due every 10 ms and takes 1 ms, but nothing is worked on for a second.
    recording = recorded(schedule(100), Queue([0.001], stall=(5.0, 6.0)))
    assert recording.latency.maximum == pytest.approx(1.0, abs=0.02)
    # Of 1,000 calls 100 are due during the stall, and 11 more before all of those are done.
    assert recording.latency.percentile(88) == pytest.approx(0.001, abs=2e-4)
    assert recording.latency.percentile(94.5) == pytest.approx(0.5, abs=0.02)


def test_an_open_loop_finds_the_wait_that_theory_says() -> None:
    # M/D/1 with a load of 0.8: the mean wait is rho / (2 (1 - rho)) services.
    recording = recorded(schedule(80, 500, "poisson"), Queue([0.01]), timeout=1e6)
    assert recording.latency.mean == pytest.approx(0.01 + 0.01 * 0.8 / (2 * 0.2), rel=0.1)


def test_a_closed_loop_hides_the_stall_from_all_but_its_callers() -> None:
    recording = recorded(Schedule(None, ONE, 0, 10, 0), Queue([0.001], stall=(5.0, 6.0)), in_flight=2)
    assert recording.latency.maximum == pytest.approx(1.0, abs=0.02)
    assert recording.latency.percentile(99.9) == pytest.approx(0.002, abs=2e-4)


def test_callers_of_a_closed_loop_wait_for_their_replies_and_send_nothing_after_the_end() -> None:
    server = Queue([0.3])
    recording = recorded(Schedule(None, ONE, 0, 2, 0), server, in_flight=3)
    assert max(server.sent) < 2
    assert recording.calls == server.calls
    # One every 0.3 s is answered, and three are always under way.
    assert server.calls == pytest.approx(2 / 0.3 + 3, abs=1)


def test_failures_are_recorded_and_not_repeated() -> None:
    server = Queue([0.001], fail=4)
    recording = recorded(schedule(100), server)
    assert server.calls == recording.calls
    assert recording.codes["UNAVAILABLE"] == recording.calls // 4
    assert recording.messages["UNAVAILABLE"] == "told to fail"


def test_the_deadline_counts_from_when_a_call_is_sent() -> None:
    recording = recorded(schedule(10), Queue([1e6]), timeout=0.5)
    assert set(recording.codes) == {"DEADLINE_EXCEEDED"}
    assert recording.latency_all.percentile(50) == pytest.approx(0.5, rel=1e-2)


def test_calls_beyond_the_bound_are_not_sent_and_counted() -> None:
    server = Queue([1e6])
    recording = recorded(schedule(10), server, timeout=100, max_in_flight=4)
    assert server.calls == 4
    assert recording.codes[NOT_SENT_FULL] == recording.calls - 4
    assert "--max-in-flight" in recording.messages[NOT_SENT_FULL]


def test_calls_that_are_due_too_long_ago_are_not_sent() -> None:
    class Frozen(VirtualClock):
        """The generator gets no time for 3 seconds."""

        def now(self) -> float:
            now = super().now()
            return now if now < 1.0 else now + 3.0

    async def test() -> Recording:
        recorder = Recorder(0, 10)
        generator = Generator(Queue([0.001]), ONE, Frozen(), recorder, Sample(0, 0), 1.0, 100)
        await generator.open_loop(schedule(10).calls())
        return recorder.finished(0.0)

    recording = run(test())
    assert 15 <= recording.codes[NOT_SENT_LATE] <= 25
    assert recording.codes["OK"] == recording.calls - recording.codes[NOT_SENT_LATE]


@pytest.mark.parametrize(("twice", "code"), [(False, "OK"), (True, GIVEN_UP)])
def test_a_stop_lets_calls_end_and_giving_up_counts_them(twice: bool, code: str) -> None:
    async def test() -> Recording:
        recorder = Recorder(0, 100)
        generator = Generator(Queue([5.0] * 2), ONE, VirtualClock(), recorder, Sample(0, 0), 1e6, 100)
        sending = asyncio.create_task(generator.open_loop(schedule(1, 100).calls()))
        await asyncio.sleep(3.5)
        generator.give_up() if twice else generator.stop()
        await sending
        return recorder.finished(0.0, generator.stopped)

    recording = run(test())
    assert recording.codes == {code: 3}
    assert recording.interrupted


def test_a_stop_is_not_held_up_by_a_long_wait() -> None:
    async def test() -> float:
        generator = Generator(Queue([0.1]), ONE, VirtualClock(), Recorder(0, 1e6), Sample(0, 0), 1.0, 100)
        sending = asyncio.create_task(generator.open_loop(schedule(0.0001, 1e6).calls()))
        await asyncio.sleep(10)
        generator.stop()
        await sending
        return asyncio.get_running_loop().time()

    assert run(test()) < 15


def test_a_fault_of_the_program_is_no_failed_call() -> None:
    class Broken(Queue):
        async def call(self, *arguments: object) -> object:  # type: ignore[override]
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        recorded(schedule(10), Broken([1.0]))
    with pytest.raises(ZeroDivisionError):
        recorded(Schedule(None, ONE, 0, 2, 0), Broken([1.0]), in_flight=2)


async def test_the_timer_wakes_at_its_moment_and_never_before() -> None:
    import time

    with Timer() as timer:
        for pause in (0.0, 0.0001, 0.003, -1.0):
            moment = time.monotonic() + pause
            await timer.wait_until(moment)
            assert time.monotonic() >= moment


async def test_others_run_while_the_timer_waits() -> None:
    import time

    ran = 0

    async def other() -> None:
        nonlocal ran
        while True:
            ran += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    with Timer() as timer:
        await timer.wait_until(time.monotonic() - 1)
        await timer.wait_until(time.monotonic() + 0.01)
    task.cancel()
    assert ran >= 2
