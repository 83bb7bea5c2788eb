"""Work on threads of the lowest priority, which the end of the process does not wait for."""

import asyncio
import os
import sys
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

# Slots compute at a niceness of 5: beside one of them, such a thread gets a quarter of its core.
NICENESS = 10


async def in_background(work: Callable[[], T], *, niceness: int = NICENESS) -> T:
    """The result of `work`, done on a thread of its own; cancelling stops waiting for it, but not the work.

    Threads of an executor would keep the process from ending while one of them waits for a file system that hangs.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def run() -> None:
        if sys.platform == "linux":
            os.nice(niceness)
        try:
            result = work()
        except BaseException as error:  # Rust's panics are no Exceptions
            tell(future.set_exception, error)
        else:
            tell(future.set_result, result)

    def tell(tell_it: Callable[[T], None] | Callable[[BaseException], None], what: object) -> None:
        def now() -> None:
            if not future.done():
                tell_it(what)  # type: ignore[arg-type]

        try:
            loop.call_soon_threadsafe(now)
        except RuntimeError:  # the loop was closed: no one waits for it
            return

    threading.Thread(target=run, name="birnn-repository", daemon=True).start()
    return await future
