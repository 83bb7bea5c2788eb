from birnn_service.queueing import known_callers
from birnn_service.queueing.known_callers import FORGOTTEN_AFTER, KNOWN_AFTER, MOST, KnownCallers


def test_a_caller_is_known_once_it_has_called_for_a_while_and_until_it_stays_away() -> None:
    callers = KnownCallers()
    assert callers.called("a", 100.0) is False
    assert callers.called("a", 100.0 + KNOWN_AFTER / 2) is False
    assert callers.called("a", 100.0 + KNOWN_AFTER) is True
    assert callers.called("a", 100.0 + KNOWN_AFTER + FORGOTTEN_AFTER) is False


def test_a_flood_of_new_addresses_neither_fills_the_memory_nor_drives_out_who_keeps_calling() -> None:
    callers = KnownCallers()
    callers.called("a", 0.0)
    for number in range(3 * MOST):
        assert callers.called(f"new-{number}", 1.0 + number / MOST) is False
        assert callers.called("a", 1.0 + number / MOST) is True
        assert len(callers) <= known_callers.MOST
