from birnn_service.queueing.loop_share import LoopShare


def told(share: LoopShare, *shares: float) -> list[bool]:
    """Whether the loop has a core of its own after a hundred batches of each of these shares."""
    answers = []
    for each in shares:
        for _ in range(100):
            share.note(-each, 1.0)
        answers.append(share.has_a_core)
    return answers


def test_a_busy_loop_gets_a_core_and_keeps_it_until_it_is_clearly_idle() -> None:
    share = LoopShare(clock=lambda: 0.0)
    assert share.has_a_core is False
    assert told(share, 0.1, 0.4, 0.7, 0.4, 0.1, 0.4) == [False, False, True, True, False, False]


def test_one_batch_does_not_decide() -> None:
    share = LoopShare(clock=lambda: 0.0)
    share.note(-5.0, 1.0)
    assert share.has_a_core is False


def test_the_processor_time_of_the_calling_thread_counts() -> None:
    share = LoopShare()
    for _ in range(200):
        mark = share.mark()
        sum(range(20_000))
        share.note(mark, 1e-5)
    assert share.has_a_core is True
