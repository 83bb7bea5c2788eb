import gc
import threading
import time
from functools import partial

import pytest

from birnn_service.engine.companion import Companion, companion


def current_thread() -> int:
    return threading.get_ident()


def test_both_results_come_back_in_order() -> None:
    own: Companion[str] = Companion()
    for number in range(100):
        here, there = f"here {number}", f"there {number}"
        assert own.both(partial(str, here), partial(str, there)) == (here, there)


def test_a_companion_that_gets_to_it_works_at_the_same_time() -> None:
    met = threading.Barrier(2, timeout=60)
    own: Companion[int] = Companion()

    def meet() -> int:
        met.wait()
        return current_thread()

    here, there = own.both(meet, meet)
    assert here == current_thread()
    assert there != here


def test_a_job_that_the_companion_has_not_begun_is_done_by_its_owner() -> None:
    own: Companion[int] = Companion()
    busy, done = threading.Event(), threading.Event()

    def keep_busy() -> int:
        busy.set()
        done.wait(60)
        return 0

    other = threading.Thread(target=own.both, args=(busy.wait, keep_busy))
    other.start()
    assert busy.wait(60)
    # The companion is at work for somebody else, as if it found no core.
    assert own.both(current_thread, current_thread) == (current_thread(), current_thread())
    done.set()
    other.join(60)
    # What was left to its owner is not done a second time.
    assert own.both(lambda: 1, lambda: 2) == (1, 2)


@pytest.mark.parametrize("place", ["here", "there"])
def test_an_error_on_either_side_is_raised_and_the_companion_lives_on(place: str) -> None:
    own: Companion[int] = Companion()

    def fail() -> int:
        raise ValueError(place)

    sides = {"here": lambda: 1, "there": lambda: 2, place: fail}
    for _ in range(20):
        with pytest.raises(ValueError, match=place):
            own.both(sides["here"], sides["there"])
    assert own.both(lambda: 3, lambda: 4) == (3, 4)


def test_a_failure_here_is_raised_only_after_the_job_there_has_ended() -> None:
    own: Companion[None] = Companion()
    begun, ended = threading.Event(), []

    def fail() -> None:
        begun.wait(60)
        raise ValueError

    def work() -> None:
        begun.set()
        time.sleep(0.05)
        ended.append(True)

    with pytest.raises(ValueError):  # noqa: PT011
        own.both(fail, work)
    assert ended == [True]


def test_each_thread_has_its_own_which_ends_with_it() -> None:
    def companions() -> int:
        return sum(thread.name == "birnn-companion" for thread in threading.enumerate())

    found: list[int] = []

    def use() -> None:
        companion().both(int, int)
        found.append(id(companion()))
        found.append(id(companion()))

    before = companions()
    threads = [threading.Thread(target=use) for _ in range(3)]
    for thread in threads:
        thread.start()
        thread.join()
    assert found[0::2] == found[1::2]
    gc.collect()
    for _ in range(1200):
        if companions() <= before:
            break
        time.sleep(0.05)
    assert companions() <= before
