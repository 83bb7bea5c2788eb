"""From strings to encodings: all protocols are adapters over `Pipeline.encode`, which knows none of them."""

import asyncio
import math
import time
from dataclasses import dataclass
from functools import partial

import numpy as np

from birnn_bundle.errors import ItemErrorCode
from birnn_bundle.tokenizer import Tokenized
from birnn_service.call import Call, Spent
from birnn_service.catalog import Encoder, address_of, width_of
from birnn_service.compute import Compute, Work
from birnn_service.encoded import Encoded, assemble, in_form, noted_in
from birnn_service.engine.cores import available_cores
from birnn_service.engine.engine import Output
from birnn_service.errors import ExpiredError, InvalidRequestError
from birnn_service.memory_budget import Hold
from birnn_service.observe.metrics import Metrics
from birnn_service.queueing.priority import Priority
from birnn_service.queueing.request import Computed
from birnn_service.reading import Sequences, reading_of
from birnn_service.settings import Settings
from birnn_service.tokenizing import Tokenizing
from birnn_service.vectors import ElementType

# Memory that a reply takes for each of its bytes: as batches give it, as it is put together, as gRPC sends it.
REPLY_COST = 3
# Requests under way from which on short ones are read together with those that arrive at the same time. Fewer callers
# hardly ever arrive together, and waiting for the end of the iteration of the event loop would cost them more.
JOINT_CALLS = 8
# Largest reply, in bytes, that is converted on the event loop: switching threads would cost more.
INLINE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Options:
    """What a request asks for.

    Attributes:
        output: One vector a sequence or one a token.
        truncate: Cut long sequences instead of failing them.
        timeout: Seconds from now in which it is to be answered; None for no limit but the call's own.
        normalize: Scale each vector to length 1.
        element_type: What the numbers are to be.
        priority: How urgent it is.
        padded: The reply takes as much room for every sequence as for the longest.
    """

    output: Output = Output.POOLED
    truncate: bool = False
    timeout: float | None = None
    normalize: bool = False
    element_type: ElementType = ElementType.FLOAT32
    priority: Priority = Priority.NORMAL
    padded: bool = False


class Pipeline:
    """Tokenizes requests, has them computed, and puts the results back in order."""

    def __init__(self, compute: Compute, settings: Settings, metrics: Metrics, *, joint: bool = False) -> None:
        """Encode with what `compute` computes.

        Args:
            compute: Computes tokens' encodings.
            settings: Limits.
            metrics: Where it is counted.
            joint: Read short requests together that arrive together. The transport must start them in one iteration of
                the event loop; grpcio starts one call in each.
        """
        self._joint_calls = JOINT_CALLS if joint else math.inf
        self._compute = compute
        self._settings = settings
        self._metrics = metrics
        # Front-ends share the cores.
        workers = max(1, available_cores() // max(1, settings.frontends))
        self._tokenizing = Tokenizing(settings.max_backlog_seconds, workers=workers)
        self._under_way = 0

    def close(self) -> None:
        """End the threads that tokenize."""
        self._tokenizing.close()

    async def encode(self, call: Call, sequences: Sequences, options: Options) -> Encoded:
        """Encode the request of a call to an encoder; items fail alone.

        Args:
            call: Says which encoder, who asks, until when, and holds the memory; what the reply takes is added.
            sequences: UTF-8; or a batch of token ids; or one of features, for an encoder that reads those.
            options: What is wanted.

        Raises:
            ServiceError: The request failed as a whole; see `birnn_service.errors`.
        """
        self._under_way += 1
        try:
            return await self._encode_in_time(call, sequences, options)
        finally:
            self._under_way -= 1

    async def _encode_in_time(self, call: Call, sequences: Sequences, options: Options) -> Encoded:
        if options.timeout is None:
            return await self._encode(call, sequences, options, call.deadline)
        deadline = min(time.monotonic() + options.timeout, math.inf if call.deadline is None else call.deadline)
        try:
            async with asyncio.timeout(options.timeout):
                return await self._encode(call, sequences, options, deadline)
        except TimeoutError as error:
            raise ExpiredError(f"the request's timeout was {options.timeout:g} s, and they have passed") from error

    async def _encode(self, call: Call, sequences: Sequences, options: Options, deadline: float | None) -> Encoded:
        encoder, output = call.encoder, options.output
        assert encoder is not None
        self._check_count(len(sequences))
        notes, start = call.notes, time.perf_counter()
        if notes is not None:
            notes.begin_tokenizing(sequences, start)
        reading = reading_of(encoder, sequences, truncate=options.truncate, max_bytes=self._settings.max_sequence_bytes)
        tokenized = await self._tokenizing.run(
            reading.label,
            reading.sizes,
            reading.read,
            deadline=deadline,
            caller=call.caller,
            joint=reading.strings if self._under_way >= self._joint_calls else None,
        )
        seconds = time.perf_counter() - start
        if notes is not None:
            notes.tokenized, notes.tokens = start + seconds, tokenized.batch.tokens
        noted = noted_in(tokenized)
        self._count(call, tokenized, noted, seconds)
        self._reserve(encoder, tokenized, options, len(sequences), call.memory)
        span = None if notes is None else notes.ids
        work = Work(encoder, output, tokenized.batch, call.caller, deadline, options.priority, span)
        computed = await self._run(work)
        if notes is not None:
            notes.batches = computed.batches
        call.spent = Spent(len(tokenized.rows), seconds, computed.queue, computed.compute, call.seconds)
        encoded = assemble(encoder, tokenized, noted, computed, output, seconds)
        return await self._in_form(encoded, options)

    async def _in_form(self, encoded: Encoded, options: Options) -> Encoded:
        """An outcome as it was asked for."""
        if not options.normalize and options.element_type is ElementType.FLOAT32:
            return encoded
        form = partial(in_form, encoded, options.element_type, normalize=options.normalize)
        formed = form() if encoded.values.nbytes <= INLINE_BYTES else await asyncio.to_thread(form)
        if lost := len(formed.errors) - len(encoded.errors):
            address, code = address_of(encoded.encoder), ItemErrorCode.OUT_OF_RANGE.name
            self._metrics.sequence_errors.labels(*address, code).inc(lost)
        return formed

    def _check_count(self, count: int) -> None:
        limit = self._settings.max_sequences
        if count == 0:
            raise InvalidRequestError(f"the request holds no sequences; send between 1 and {limit}")
        if count > limit:
            raise InvalidRequestError(
                f"the request holds {count} sequences and this server accepts {limit} in a call; split it"
            )

    def _reserve(self, encoder: Encoder, tokenized: Tokenized, options: Options, count: int, memory: Hold) -> None:
        """Set aside the memory that the reply to `count` sequences will take; refuse replies that are too large."""
        output, rows, padding = options.output, count, ""
        if output is Output.TOKENS:
            rows = tokenized.batch.tokens
            if options.padded:
                longest = int(tokenized.batch.lengths.max(initial=0))
                rows, padding = count * longest, f", with {count} sequences padded to {longest} tokens,"
        size, limit = rows * width_of(encoder, output) * 4, self._settings.max_reply_bytes
        if size > limit:
            raise InvalidRequestError(
                f"the reply would hold {size / (1 << 20):.4g} MiB{padding} and this server sends at most "
                f"{limit / (1 << 20):.4g} (--max-reply-mib); split the request"
            )
        memory.take(REPLY_COST * size)

    async def _run(self, work: Work) -> Computed:
        if len(work.batch) == 0:
            return Computed.nothing(width_of(work.encoder, work.output))
        return await self._compute.encode(work)

    def _count(self, call: Call, tokenized: Tokenized, noted: list[int], seconds: float) -> None:
        metrics = call.metrics
        assert metrics is not None
        metrics.tokenize_seconds.observe(seconds)
        metrics.sequence_length.observe_all(tokenized.batch.lengths)
        for error in tokenized.errors:
            self._metrics.sequence_errors.labels(*metrics.address, error.code.name).inc()
        if noted:
            metrics.unknown_tokens.inc(int(tokenized.unknown.sum()))
            metrics.truncated_sequences.inc(int(np.count_nonzero(tokenized.truncated)))
