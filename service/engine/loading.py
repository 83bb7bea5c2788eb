"""From a bundle to an engine that is proven to serve it, on the device asked for."""

from dataclasses import dataclass
from typing import Literal

import onnxruntime as ort

from bundle.bundle import Bundle
from service.engine.engine import Engine
from service.engine.gate import GateReport, pass_gate
from service.engine.onnx_engine import CPU, CUDA, OnnxEngine, missing_cuda_hint
from service.errors import StartupError

Device = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True, slots=True)
class Proven:
    """An engine that has passed the gate, and how `auto` came to choose its device."""

    engine: Engine
    report: GateReport
    choice: str


def load_engine(bundle: Bundle, device: Device, *, slots: int | None = None, gpu_memory_mib: int = 4096) -> Proven:
    """Load `bundle` on `device` and prove it.

    Raises:
        StartupError: The device does not work, recurrent nodes ran elsewhere, or encodings disagree with the golden
            ones.
    """
    if device == "cpu":
        return _prove(bundle, CPU, "asked for", slots, gpu_memory_mib)
    if CUDA not in ort.get_available_providers():
        if device == "cuda":
            raise StartupError(f"--device cuda: no CUDA in this onnxruntime. {missing_cuda_hint()}")
        return _prove(bundle, CPU, "this onnxruntime has no CUDA", slots, gpu_memory_mib)
    ort.preload_dlls()
    if device == "cuda":
        return _prove(bundle, CUDA, "asked for", slots, gpu_memory_mib)
    try:
        return _prove(bundle, CUDA, "CUDA works", slots, gpu_memory_mib)
    except StartupError as error:
        return _prove(bundle, CPU, f"CUDA does not work: {error}", slots, gpu_memory_mib)


def _prove(bundle: Bundle, provider: str, choice: str, slots: int | None, gpu_memory_mib: int) -> Proven:
    engine = OnnxEngine(bundle, provider, slots=slots, gpu_memory_mib=gpu_memory_mib)
    report = pass_gate(bundle, engine)
    strays = {node: found for node, found in engine.placement().items() if found != provider}
    if strays:
        raise StartupError(f"{bundle.label}: asked for {provider}, but onnxruntime ran {strays}")
    return Proven(engine, report, choice)
