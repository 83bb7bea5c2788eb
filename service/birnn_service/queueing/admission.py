"""Admission: refuses requests at once, so that callers learn early and nothing is computed unused."""

from birnn_service.errors import DeadlineError, OverloadedError, Reason

# A request is admitted if it would be done in time even if everything took this many times longer than predicted.
CAUTION = 1.3
# Seconds after which a refused caller may come back at the earliest.
LEAST_RETRY = 0.1


def check_backlog(total: float, own: float, share: float, limit: float) -> None:
    """Bound the work that waits, and share that bound.

    While less than the limit waits, everything is admitted, so a lone caller may use all of it. Beyond the limit a
    request is admitted if its caller stays within its own share. A caller that has filled its share is refused and
    causes no other to be refused. Of n callers none of which was refused, the last ones are admitted beyond the limit:
    at most 1/2 + 1/3 + ... + 1/n times the limit in all, and as much again of HIGH requests.

    Args:
        total: Predicted seconds until all that waits is done.
        own: The part of it that is the caller's on this lane, with its new request; where that is HIGH, without what it
            passes.
        share: The caller's share of the limit, as a fraction.
        limit: Predicted seconds that may wait.

    Raises:
        OverloadedError: The limit is reached, and the caller's share is full.
    """
    if total <= limit or own <= share * limit:
        return
    part = "" if share == 1.0 else f" and this caller's share of it is {share * limit:.3g} s"
    raise OverloadedError(
        f"about {total:.1f} s of work wait already, the limit is {limit:g} s (max_backlog_seconds){part}; "
        "retry later, or add a replica",
        max(LEAST_RETRY, min(total, own / share) - limit / 2),
        Reason.QUEUE,
    )


def check_deadline(count: int, alone: float, ahead: float, batches: float, left: float) -> None:
    """Refuse what will not be done in time: half of a request computed is work wasted.

    Args:
        count: Sequences of the request.
        alone: Predicted seconds that they take.
        ahead: Predicted seconds of what is served before they are done.
        batches: Predicted seconds of the batches under way and of the last one of the request.
        left: Seconds until the deadline.

    Raises:
        DeadlineError: The deadline cannot be met even if nothing else waited.
        OverloadedError: It cannot be met behind what is ahead.
    """
    if alone > left:
        raise DeadlineError(
            f"{count} sequences take about {alone:.3g} s and {max(0.0, left):.3g} s are left; "
            "send fewer in a call, or allow more time"
        )
    needed = CAUTION * (ahead + alone) + batches
    if ahead > 0 and needed > left:
        raise OverloadedError(
            f"about {ahead:.3g} s of work are ahead of this request and {left:.3g} s are left until its deadline; "
            "retry later, allow more time, or add a replica",
            max(LEAST_RETRY, needed - left),
            Reason.DEADLINE,
        )
