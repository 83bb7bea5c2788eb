"""Waiting for a moment more precisely than event loops do, which wake up to a millisecond late."""

import asyncio
import ctypes
import os
import sys
import time
from contextlib import suppress
from types import TracebackType
from typing import Self


class _TimeSpec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _TimerSpec(ctypes.Structure):
    _fields_ = (("interval", _TimeSpec), ("first", _TimeSpec))


class Timer:
    """Wakes one task of the running event loop at moments of time.monotonic().

    On Linux it is a timerfd, precise to some 50 us, by the C library, because Python has those from 3.13 on only.
    Elsewhere it is the event loop's own timer, which wakes up to a millisecond late.

    Attributes:
        precise: Whether it is the first of these.
    """

    def __init__(self) -> None:
        self.precise = sys.platform == "linux"
        self._loop = asyncio.get_running_loop()
        self._awaited: asyncio.Future[None] | None = None
        if self.precise:
            self._libc = ctypes.CDLL(None, use_errno=True)
            self._file = self._libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
            if self._file < 0:
                raise OSError(ctypes.get_errno(), "timerfd_create failed")
            self._loop.add_reader(self._file, self._rang)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.precise:
            self._loop.remove_reader(self._file)
            os.close(self._file)

    async def wait_until(self, moment: float) -> None:
        """Return at `moment`, by time.monotonic(), and never before; let others run in any case."""
        if not self.precise or moment <= time.monotonic():
            await asyncio.sleep(max(0.0, moment - time.monotonic()))
        # Event loops may wake early by their resolution.
        while (left := moment - time.monotonic()) > 0:
            await self._ring(moment) if self.precise else asyncio.sleep(max(left, 0.001))

    async def _ring(self, moment: float) -> None:
        if self._awaited is not None and not self._awaited.done():
            raise RuntimeError("a timer wakes one task at a time")
        self._awaited = self._loop.create_future()
        seconds = int(moment)
        nanoseconds = min(int((moment - seconds) * 1e9) + 1, 999_999_999)
        spec = _TimerSpec(_TimeSpec(0, 0), _TimeSpec(seconds, nanoseconds))
        absolute = 1
        if self._libc.timerfd_settime(self._file, absolute, ctypes.byref(spec), None) < 0:
            raise OSError(ctypes.get_errno(), "timerfd_settime failed")
        await self._awaited

    def _rang(self) -> None:
        with suppress(BlockingIOError):
            os.read(self._file, 8)
        if self._awaited is not None and not self._awaited.done():
            self._awaited.set_result(None)
