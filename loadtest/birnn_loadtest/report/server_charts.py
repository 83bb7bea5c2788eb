"""Charts of what the server measured itself: where the time of calls went, and how full batches were."""

from typing import Any

from birnn_loadtest.report.axis import linear
from birnn_loadtest.report.chart import LEFT, LETTER, RIGHT, WIDTH, Chart
from birnn_loadtest.report.figure import Figure, milliseconds, share_text, time_text
from birnn_loadtest.report.saved_run import SavedRun

# Besides the stages that the server measured.
PARTS = {
    "lag": "lag of the generator: from due to sent",
    "outside": "not known: network, client, and what the server does before it counts a call",
    "rest": "not known: the server's remaining time, such as reading and replying",
}
UNKNOWN = ("outside", "rest")
NO_METRICS = "Left out: the server's metrics were not read (--metrics URL)."


def stages(run: SavedRun) -> Figure:
    """The mean time of a call, in parts."""
    heading = "Where the time of a call went"
    split = run.data["server_metrics"]
    if split is None:
        return Figure(heading, NO_METRICS)
    means = {stage: figures["mean"] for stage, figures in split["stages"].items()}
    if split["rest"] is None or run.run["latency"] is None:
        unmeasured = [*split["missing"], *(stage for stage, mean in means.items() if mean is None)]
        why = "; ".join(
            [*split["problems"], f"not measured: {', '.join(unmeasured)}" if unmeasured else "no call succeeded"]
        )
        return Figure(heading, f"Left out: {why}.")
    seen, lag = run.run["latency"]["mean"], run.run["lag"]["mean"]
    outside = seen - lag - means["request"]
    measured = {stage: mean for stage, mean in means.items() if stage != "request"}
    parts = {**measured, "rest": split["rest"]}
    what = {**PARTS, **{stage: split["stages"][stage]["what"] for stage in measured}}
    words = (
        f"On average a call took {time_text(seen)} from when it was due, {time_text(means['request'])} of it in the "
        "server. Hatched: not known."
    )
    if outside >= 0:
        parts = {"lag": lag, "outside": outside, **parts}
    else:
        words += (
            " The server's mean is above that of the calls sent, so it also had other calls; only its part is drawn."
        )
    if (over := sum(measured.values()) - means["request"]) > 0:
        words += f" The stages add up to {time_text(over)} more than the server's mean, since calls share batches."
    total = sum(parts.values())
    chart = Chart("Mean time of a call by stage", words, 190)
    x = linear(1000 * total, *chart.across)
    chart.axes(x, None, "mean time, ms", "")
    before, ends = 0.0, []
    for stage, seconds in parts.items():
        left, right = x.place(1000 * before), x.place(1000 * (before + seconds))
        kind = f"part part-{stage}{' unknown' if stage in UNKNOWN else ''}"
        chart.bar(left, 62, max(right - left, 0.5), 52, kind, f"{stage}: {time_text(seconds)}, {what[stage]}")
        ends.append((stage, seconds, left, right))
        before += seconds
    # Labels take turns above the bar and below it, so that those of thin parts do not meet.
    room = {False: LEFT, True: LEFT}
    for number, (stage, seconds, left, right) in enumerate(ends):
        text, below = f"{stage} {1000 * seconds:.2f}", number % 2 == 1
        width = LETTER * len(text)
        at = min(max((left + right - width) / 2, room[below]), WIDTH - RIGHT + 100 - width)
        room[below] = at + width + 10
        chart.text(at, 130 if below else 53, text, "tick halo")
    rows = [
        (stage, milliseconds(seconds), share_text(seconds / total if total else None), what[stage],
         *(milliseconds(split["stages"].get(stage, {}).get(name)) for name in ("p50", "p99")))
        for stage, seconds in parts.items()
    ]  # fmt: skip
    return Figure(
        heading, words, [chart.svg()], ("part", "mean, ms", "share", "what it is", "p50, ms", "p99, ms"), rows
    )


def batches(run: SavedRun) -> Figure:
    """How many sequences the server put into a batch."""
    heading = "Batch sizes"
    split = run.data["server_metrics"]
    if split is None:
        return Figure(heading, NO_METRICS)
    found = split["batches"]
    if found is None or not found["count"]:
        return Figure(heading, "Left out: " + ("the server does not tell them." if found is None else "no batch ran."))
    if len(found["buckets"]) == 1:
        return Figure(heading, f"{_batches(found)} The server does not tell how their sizes vary.")
    sizes = _sizes(found["buckets"])
    words = _batches(found)
    chart = Chart("Share of batches by their number of sequences", words, 260)
    # With room above the highest bar for its label.
    y = linear(max(count for _, count in sizes) / found["count"] * 110, *chart.upward)
    chart.axes(None, y, "sequences in a batch", "share of batches, %")
    start, end = chart.across
    step = (end - start) / len(sizes)
    for number, (size, count) in enumerate(sizes):
        share = count / found["count"]
        left, top = start + number * step, y.place(100 * share)
        chart.bar(left + step * 0.15, top, step * 0.7, chart.upward[0] - top, "part part-compute",
                  f"{size} sequences: {count:,.0f} batches")  # fmt: skip
        chart.text(left + step / 2, top - 5, share_text(share), "tick halo", "middle")
        chart.text(left + step / 2, chart.upward[0] + 17, size, "tick", "middle")
    rows = [(size, f"{count:,.0f}", share_text(count / found["count"])) for size, count in sizes]
    return Figure(heading, words, [chart.svg()], ("sequences", "batches", "share"), rows)


def _batches(found: dict[str, Any]) -> str:
    return f"{found['count']:,.0f} batches of {found['mean']:.1f} sequences on average."


def _sizes(buckets: list[list[Any]]) -> list[tuple[str, float]]:
    """Names of buckets with their own counts, up to the last that is not empty; in the file counts are cumulative."""
    sizes: list[tuple[str, float]] = []
    below, low = 0.0, 1.0
    # The bucket without a bound, null, comes last.
    for bound, total in sorted(buckets, key=lambda bucket: (bucket[0] is None, bucket[0] or 0)):
        name = f"{low:g}+" if bound is None else f"{bound:g}" if bound <= low else f"{low:g}–{bound:g}"
        sizes.append((name, total - below))
        below, low = total, low if bound is None else bound + 1
    while len(sizes) > 1 and not sizes[-1][1]:
        sizes.pop()
    return sizes
