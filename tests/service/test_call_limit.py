import pytest

from birnn_service.call_limit import CallLimit
from birnn_service.errors import OverloadedError


def test_no_caller_keeps_others_out_by_opening_calls() -> None:
    limit = CallLimit(8)
    for _ in range(6):
        limit.enter("name:greedy")
    with pytest.raises(OverloadedError, match=r"this caller has 6 calls .* allows 8 \(--max-calls\), 75% of them"):
        limit.enter("name:greedy")
    limit.enter("name:a")
    limit.enter("name:b")
    with pytest.raises(OverloadedError, match=r"this server has 8 calls under way, its limit \(--max-calls\)"):
        limit.enter("name:c")
    limit.leave("name:greedy")
    limit.enter("name:c")


def test_the_only_call_of_a_caller_needs_no_share() -> None:
    limit = CallLimit(1)
    for _ in range(2):
        limit.enter("name:a")
        with pytest.raises(OverloadedError, match="this server has 1 calls under way"):
            limit.enter("name:a")
        limit.leave("name:a")
