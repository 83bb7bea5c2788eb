"""Rate limits of tenants: how many sequences each may send, on average and at once."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from birnn_service.errors import InvalidRequestError, RateLimitedError
from birnn_service.tenants import tenant_of
from birnn_service.token_file import Grants

# Most seconds after which a caller is told to retry: clients cannot read much larger ones.
LONGEST_RETRY = 86_400.0


@dataclass(slots=True)
class _Bucket:
    """What a tenant may still send, as of a time."""

    room: float
    at: float


class RateLimits:
    """A token bucket for each tenant with a limit in the token file.

    It belongs to the process with the engines, through which all work goes. So a limit holds over all front-ends.
    """

    def __init__(self, grants: Callable[[], Grants], clock: Callable[[], float] = time.monotonic) -> None:
        """Enforce the limits in `grants`, as they are at each request."""
        self._grants = grants
        self._clock = clock
        self._buckets: dict[str, _Bucket] = {}

    def take(self, caller: str, sequences: int) -> None:
        """Let a request of a caller pass, or refuse it.

        Raises:
            InvalidRequestError: It holds more sequences than the caller may ever send at once.
            RateLimitedError: The caller has sent too many.
        """
        lines = self._grants().by_name
        tenant = tenant_of(caller)
        grant = lines.get(tenant)
        if grant is None or grant.limit is None:
            self._buckets.pop(tenant, None)
            return
        rate, burst = grant.limit
        if sequences > burst:
            raise InvalidRequestError(
                f"the request holds {sequences} sequences and {tenant} may send {burst} at once (its burst); split it"
            )
        now = self._clock()
        bucket = self._buckets.setdefault(tenant, _Bucket(burst, now))
        bucket.room = min(burst, bucket.room + (now - bucket.at) * rate)
        bucket.at = now
        if sequences > bucket.room:
            raise RateLimitedError(
                f"{tenant} may send {rate:g} sequences a second, {burst} at once, and has sent too many; retry later",
                retry_after=min((sequences - bucket.room) / rate, LONGEST_RETRY),
            )
        bucket.room -= sequences

    def give_back(self, caller: str, sequences: int) -> None:
        """A request that was let pass has been refused for something else."""
        if (bucket := self._buckets.get(tenant_of(caller))) is not None:
            bucket.room += sequences
