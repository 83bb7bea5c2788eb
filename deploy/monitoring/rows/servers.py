"""Rows about what runs: encoders, their versions, and processes."""

from deploy.monitoring.panels import Panels, graph, rows_of
from deploy.monitoring.queries import BY_VERSION, ENCODERS, RATE, SERVERS, VERSION, total


def encoders() -> Panels:
    """What is served, and by what?"""
    return [
        rows_of(
            "Versions",
            "What is served.",
            f"birnn_encoder_info{{{ENCODERS}}}",
            {
                "instance": "server",
                "encoder": "encoder",
                "version": "version",
                "architecture": "architecture",
                "dimension": "dimension",
                "pooling": "pooling",
                "engine": "engine",
                "device": "device",
                "precision": "precision",
            },
        ),
        graph(
            "Ready",
            "1 where a version is served.",
            {f"{VERSION} {{{{instance}}}}": f"birnn_encoder_ready{{{ENCODERS}}}"},
        ),
        graph(
            "Calls by version",
            "",
            {VERSION: total("birnn_requests_total", f'{ENCODERS},encoder!=""', BY_VERSION)},
            "reqps",
        ),
        graph(
            "Swaps",
            "Versions loaded, refused and unloaded.",
            {
                f"{{{{outcome}}}} {VERSION}": "sum by (outcome, encoder, version) "
                f"(increase(birnn_encoder_loads_total{{{ENCODERS}}}{RATE}))"
            },
        ),
        graph(
            "Second choice",
            "1 where `auto` could not have the device or the engine that it tried first.",
            {f"{VERSION} {{{{instance}}}}": f"birnn_encoder_fallback{{{ENCODERS}}}"},
        ),
    ]


def front_ends() -> Panels:
    """How are the processes?"""
    each = "{{instance}} {{process}}"
    return [
        graph(
            "Front-ends",
            "Those that take calls, those that there should be, and restarts.",
            {
                "{{instance}}": f"birnn_frontends{{{SERVERS}}}",
                "{{instance}} wanted": f"birnn_frontends_wanted{{{SERVERS}}}",
                "{{instance}} restarts": f"increase(birnn_frontend_restarts_total{{{SERVERS}}}{RATE})",
            },
        ),
        graph("CPU", "Cores.", {each: f"rate(birnn_process_cpu_seconds_total{{{SERVERS}}}{RATE})"}),
        graph("Memory", "", {each: f"birnn_process_resident_bytes{{{SERVERS}}}"}, "bytes"),
        rows_of(
            "Servers",
            "Versions of the server and of onnxruntime.",
            f"birnn_server_info{{{SERVERS}}}",
            {"job": "job", "instance": "server", "version": "version", "onnxruntime": "onnxruntime"},
        ),
        graph(
            "Without a descriptor",
            "Times that a process had no file descriptor left for another connection.",
            {"{{instance}}": f"increase(birnn_descriptors_exhausted_total{{{SERVERS}}}{RATE})"},
        ),
    ]
