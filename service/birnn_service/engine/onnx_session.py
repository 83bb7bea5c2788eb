"""Sessions of onnxruntime, on the provider asked for and never silently on another one."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from birnn_bundle.cells import OPERATORS
from birnn_bundle.onnxruntime import ort
from birnn_service.engine.engine import Output
from birnn_service.errors import StartupError

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


def open_session(
    graph: bytes,
    label: str,
    provider: str,
    provider_options: Mapping[str, str] | None = None,
    profile: Path | None = None,
    weights: Mapping[str, NDArray[Any]] | None = None,
) -> ort.InferenceSession:
    """Load a graph.

    Args:
        graph: A serialized model.
        label: What to call it in messages.
        provider: Execution provider that has to run it.
        provider_options: Options of that provider.
        profile: Where to record its runs until `recurrent_placement` is asked for; by default they are not recorded.
        weights: What the model stores elsewhere, by name; onnxruntime copies it. A file it would map into memory, and
            compute with whatever is written there later.

    Raises:
        StartupError: onnxruntime cannot load the graph, or did not take the provider.
    """
    options = ort.SessionOptions()
    # One run per core beats several cores on one run: the recurrence is a chain, and its gate loops use one thread.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # A pattern would be kept for every shape ever seen, and saves nothing measurable.
    options.enable_mem_pattern = False
    # The arena keeps what the largest batch ever took, twice what is needed, and saves 1 % of the time at most.
    options.enable_cpu_mem_arena = provider != CPU
    if weights:
        options.add_external_initializers(
            list(weights), [ort.OrtValue.ortvalue_from_numpy(values) for values in weights.values()]
        )
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
    try:
        session = ort.InferenceSession(graph, options, providers=[(provider, dict(provider_options or {}))])
    except Exception as error:  # onnxruntime raises a dozen types of its own
        raise StartupError(f"onnxruntime cannot load {label}: {error}") from error
    if session.get_providers()[0] != provider:
        raise StartupError(
            f"asked for {provider}, onnxruntime took {session.get_providers()[0]}: {missing_cuda_hint()}"
        )
    return session


def input_name(session: ort.InferenceSession) -> str:
    """Name of the input that holds the tokens [T, B, ...]; the other one is `lengths` [B]."""
    name: str = session.get_inputs()[0].name
    return name


def placements(sessions: Mapping[Output, ort.InferenceSession]) -> dict[str, str]:
    """Which provider each recurrent node of all graphs has run on; see `recurrent_placement`."""
    return {
        node: provider
        for output, session in sessions.items()
        for node, provider in recurrent_placement(session, output.value).items()
    }


def recurrent_placement(session: ort.InferenceSession, label: str) -> dict[str, str]:
    """Which provider each recurrent node has run on since loading; ends the recording, so call it once.

    Raises:
        StartupError: The graph has not been run yet, or has no recurrent node.
    """
    events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    nodes = [event["args"] for event in events if event.get("args", {}).get("op_name") in OPERATORS]
    found = {f"{label}:{node['node_index']}": str(node["provider"]) for node in nodes}
    if not found:
        raise StartupError(f"no recurrent node of the {label} graph was seen to run")
    return found


def missing_cuda_hint() -> str:
    """What to do where CUDA does not work."""
    return (
        "CUDA needs an NVIDIA driver, onnxruntime-gpu (pip install 'birnn-serving[service,gpu]') and no plain "
        f"onnxruntime beside it; this onnxruntime {ort.__version__} offers {', '.join(ort.get_available_providers())}"
    )
