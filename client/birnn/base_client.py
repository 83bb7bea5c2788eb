"""What both clients have in common: their options, and how results are taken from an answer."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Self

import grpc
import numpy as np
from numpy.typing import NDArray

from birnn.assembly import Assembly
from birnn.channel import DEFAULT_ADDRESS, checked_address
from birnn.encode_call import EncodeCall, Output
from birnn.retries import RETRY_FOR, Outage

# Seconds in which a server says what it serves.
LIST_TIMEOUT = 10.0


class BaseClient(ABC):
    """The options of a client. They are described in `Client`.

    Raises:
        ValueError: The address has no port, or a number is too small.
    """

    def __init__(
        self,
        address: str = DEFAULT_ADDRESS,
        *,
        credentials: grpc.ChannelCredentials | None = None,
        batch_size: int = 512,
        in_flight: int = 4,
        half: bool = False,
        retry_for: float = RETRY_FOR,
    ) -> None:
        if batch_size < 1 or in_flight < 1:
            raise ValueError(f"batch_size and in_flight must be at least 1, not {batch_size} and {in_flight}")
        if not retry_for >= 0:
            raise ValueError(f"retry_for must be at least 0 seconds, not {retry_for}")
        self.address = checked_address(address)
        self._outage = Outage(address, retry_for)
        self._credentials = credentials
        self._batch_size = batch_size
        self._in_flight = in_flight
        self._half = half
        self._open()

    @abstractmethod
    def _open(self) -> None:
        """Prepare the connection."""

    def __reduce__(self) -> tuple[Callable[..., Self], tuple[()]]:
        """Address and options; the copy has a connection of its own.

        Raises:
            TypeError: The client has credentials, which cannot be pickled.
        """
        if self._credentials is not None:
            raise TypeError("a client with credentials cannot be pickled; make one where it is needed")
        return partial(
            type(self),
            self.address,
            batch_size=self._batch_size,
            in_flight=self._in_flight,
            half=self._half,
            retry_for=self._outage.retry_for,
        ), ()

    def _call(
        self,
        output: Output,
        encoder: str,
        version: str | int | None,
        truncate: bool,
        *,
        timeout: float | None = None,
        each: float | None = None,
        kind: type[EncodeCall] = EncodeCall,
    ) -> EncodeCall:
        return kind(output, encoder, version, truncate, self._batch_size, timeout, self._half, each)


def vectors_of(answer: Assembly, on_error: str, *, single: bool) -> NDArray[np.float32]:
    """The vectors [n, dimension] of an answer, or that of a `single` sequence [dimension].

    Raises:
        SequenceError: Some sequences have none, and `on_error` is "raise".
    """
    if on_error == "raise":
        answer.raise_errors()
    vectors = answer.encodings().vectors
    return vectors[0] if single else vectors


def token_vectors_of(answer: Assembly, on_error: str) -> list[NDArray[np.float32]]:
    """The vectors [length, token_dimension] of each sequence of an answer.

    Raises:
        SequenceError: Some sequences have none, and `on_error` is "raise".
    """
    if on_error == "raise":
        answer.raise_errors()
    return answer.token_encodings().tokens
