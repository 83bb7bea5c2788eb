"""Sharing: equal sequences of one lane and one tenant that are in flight together are computed once."""

from birnn_service.queueing.request import Request
from birnn_service.tenants import partition_of


class Sharing:
    """The distinct sequences of one lane that wait or run. The first request to bring one leads, others follow it."""

    def __init__(self, max_rows: int) -> None:
        """Share rows; `max_rows` is the size of a full batch."""
        self._max_rows = max_rows
        # By partition and sequence: whether another tenant's is in flight must not show in the time of a reply.
        self._leaders: dict[tuple[str, bytes], tuple[Request, int]] = {}

    def join(self, request: Request) -> list[int]:
        """Let the rows of `request` follow equal ones where these are done no later; the others become leaders.

        A row that runs already is done first. One that waits is done no later if it is of the same caller, no less
        urgent, and no further back in its request than this one in its own (see `Lane.arrange`). Otherwise a row is
        computed twice rather than late: what other callers have in the queue must not delay it.

        Returns:
            The rows that have to be computed.
        """
        leaders, partition = self._leaders, partition_of(request.caller)
        computed = []
        for row, key in enumerate(request.keys):
            leader = leaders.get((partition, key))
            if leader is None:
                leaders[partition, key] = (request, row)
                computed.append(row)
                continue
            other, place = leader
            waits_no_longer = (
                other.caller == request.caller
                and other.priority <= request.priority
                and place // self._max_rows <= row // self._max_rows
            )
            if waits_no_longer or other.launched[place]:
                other.followers.setdefault(place, []).append((request, row))
            else:
                computed.append(row)
        return computed

    def leave(self, request: Request, rows: list[int]) -> list[tuple[int, Request, int]]:
        """Rows of `request` are done, or will never be: no other row can follow them.

        Returns:
            Their followers: the row followed, and the request and row that followed it.
        """
        partition = partition_of(request.caller)
        for row in rows:
            key = (partition, request.keys[row])
            if self._leaders.get(key) == (request, row):
                del self._leaders[key]
        if not request.followers:
            return []
        return [(row, other, place) for row in rows for other, place in request.followers.pop(row, ())]

    def lead(self, request: Request, row: int) -> bool:
        """Make a row whose leader is gone the new leader; false where another has taken its place."""
        leader = self._leaders.setdefault((partition_of(request.caller), request.keys[row]), (request, row))
        if leader == (request, row):
            return True
        leader[0].followers.setdefault(leader[1], []).append((request, row))
        return False
