"""Histogram logs: one line for each interval, in the format that HdrHistogram's tools read and merge."""

import io
from datetime import datetime

from hdrh.log import HistogramLogWriter

from birnn_loadtest.recorder import Recording


def write_log(recording: Recording, started: datetime) -> str:
    """The latency of a run's intervals as a log: values in microseconds, the largest of each interval in milliseconds.

    Args:
        recording: What was recorded.
        started: When the test began.
    """
    text = io.StringIO()
    writer = HistogramLogWriter(text)
    begin = started.timestamp() + recording.warmup
    writer.output_comment("[Logged with birnn loadtest: latency of calls that ended OK, in microseconds]")
    writer.output_log_format_version()
    # Not output_start_time, which fails on every date.
    writer.output_comment(f"[StartTime: {begin:.3f} (seconds since epoch), {started.isoformat(timespec='seconds')}]")
    writer.output_legend()
    for number in sorted(recording.intervals):
        packed = recording.intervals[number]
        largest = packed.unpacked().latency.maximum
        text.write(
            f"{number * recording.interval:.3f},{recording.interval:.3f},{1000 * largest:.3f},{packed.latency}\n"
        )
    return text.getvalue()
