"""Rate limits of tenants, on a clock of the tests."""

import random

import pytest

from birnn_service.errors import InvalidRequestError, RateLimitedError
from birnn_service.rate_limits import RateLimits
from birnn_service.token_file import Grant, Grants


class Limited:
    """Rate limits, their lines and their clock."""

    def __init__(self, **limits: float) -> None:
        self.now = 1000.0
        self.grants = Grants()
        self.change(**limits)
        self.limits = RateLimits(lambda: self.grants, lambda: self.now)

    def change(self, **limits: float) -> None:
        line = Grant.model_validate({"name": "lab", "rights": (), **limits})
        self.grants = Grants((line, Grant(name="free", rights=())))


def test_what_is_more_than_the_rate_is_refused_and_told_when_there_is_room() -> None:
    limited = Limited(sequences_per_second=100, burst=300)
    for _ in range(3):
        limited.limits.take("name:lab", 100)
    with pytest.raises(RateLimitedError, match="lab may send 100 sequences a second, 300 at once") as caught:
        limited.limits.take("name:lab", 50)
    assert caught.value.retry_after == pytest.approx(0.5)
    limited.now += 0.499
    with pytest.raises(RateLimitedError):
        limited.limits.take("name:lab", 50)
    limited.now += 0.0011
    limited.limits.take("name:lab", 50)


def test_what_is_larger_than_the_burst_never_passes_and_says_so() -> None:
    limited = Limited(sequences_per_second=100, burst=300)
    with pytest.raises(InvalidRequestError, match="301 sequences and lab may send 300 at once"):
        limited.limits.take("name:lab", 301)
    limited.limits.take("name:lab", 300)


def test_the_burst_is_by_default_that_of_a_second_and_at_least_one() -> None:
    limited = Limited(sequences_per_second=0.25)
    limited.limits.take("name:lab", 1)
    with pytest.raises(RateLimitedError) as caught:
        limited.limits.take("name:lab", 1)
    assert caught.value.retry_after == pytest.approx(4)


@pytest.mark.parametrize("rate", [1e-12, 1e-310])
def test_a_rate_next_to_nothing_says_when_to_retry_in_numbers_that_clients_can_read(rate: float) -> None:
    limited = Limited(sequences_per_second=rate)
    limited.limits.take("name:lab", 1)
    with pytest.raises(RateLimitedError) as caught:
        limited.limits.take("name:lab", 1)
    assert caught.value.retry_after == 86_400


def test_callers_without_a_limit_have_none() -> None:
    limited = Limited(sequences_per_second=1)
    for caller in ("name:free", "name:unlisted", "ipv4:192.0.2.1", "lab", "health"):
        for _ in range(100):
            limited.limits.take(caller, 1000)


def test_a_pause_earns_no_more_than_a_burst_and_what_others_send_counts_not() -> None:
    limited = Limited(sequences_per_second=10, burst=20)
    limited.now += 1e6
    limited.limits.take("name:lab", 20)
    limited.limits.take("name:free", 10**6)
    with pytest.raises(RateLimitedError):
        limited.limits.take("name:lab", 1)


def test_a_change_of_the_file_changes_the_limit() -> None:
    limited = Limited(sequences_per_second=10, burst=10)
    limited.limits.take("name:lab", 10)
    limited.change(sequences_per_second=1000, burst=1000)
    limited.now += 0.5
    limited.limits.take("name:lab", 500)
    limited.change()
    limited.limits.take("name:lab", 10**6)
    limited.change(sequences_per_second=5, burst=5)
    limited.limits.take("name:lab", 5)
    with pytest.raises(RateLimitedError):
        limited.limits.take("name:lab", 1)


def test_what_is_given_back_may_be_sent_again() -> None:
    limited = Limited(sequences_per_second=10, burst=10)
    limited.limits.take("name:lab", 10)
    limited.limits.give_back("name:lab", 10)
    limited.limits.give_back("name:free", 10)
    limited.limits.take("name:lab", 10)


@pytest.mark.parametrize("seed", range(5))
def test_over_any_time_no_more_passes_than_the_rate_and_a_burst(seed: int) -> None:
    numbers, limited = random.Random(seed), Limited(sequences_per_second=50, burst=120)
    passed: list[tuple[float, int]] = []
    waits: list[float] = []
    for _ in range(2000):
        limited.now += numbers.expovariate(20)
        size = numbers.choice([1, 5, 40, 120])
        try:
            limited.limits.take("name:lab", size)
        except RateLimitedError as error:
            waits.append(error.retry_after * 50 / size)
            continue
        passed.append((limited.now, size))
    for first in range(0, len(passed), 25):
        total = 0
        for time, size in passed[first:]:
            total += size
            assert total <= 50 * (time - passed[first][0]) + 120 + 1e-6
    assert 0 < min(waits) <= max(waits) <= 1
    # And nearly as much does pass.
    assert sum(size for _, size in passed) > 0.8 * 50 * (passed[-1][0] - passed[0][0])
