"""What a lone sequence costs with no server around: one `session.run` after the other."""

import time
from collections.abc import Sequence

import numpy as np

from bench.loads import Sample
from bench.peers.served.onnx_encoder import OnnxEncoder


def bare_runs(encoder: OnnxEncoder, sequences: Sequence[str], seconds: float) -> Sample:
    """Run the graph on single sequences, tokenized beforehand, over and over for about `seconds`."""
    feeds = [encoder.feed([sequence.encode()]) for sequence in sequences]
    for feed in feeds[:20]:
        encoder.run(feed)
    calls = []
    begin = time.perf_counter()
    number = 0
    while (start := time.perf_counter()) < begin + seconds:
        encoder.run(feeds[number % len(feeds)])
        calls.append((start, time.perf_counter()))
        number += 1
    return Sample.of(np.array(calls), 1, begin, calls[-1][1])
