"""One call, as the services see it."""

import grpc

from birnn_service.memory_budget import Hold


class Call:
    """A call: how it is answered, who makes it, and the memory that it holds until its reply has been sent."""

    __slots__ = ("caller", "context", "memory")

    def __init__(self, context: grpc.aio.ServicerContext, caller: str, memory: Hold) -> None:
        self.context = context
        self.caller = caller
        self.memory = memory
