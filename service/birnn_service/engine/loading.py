"""From a bundle to an engine that is proven to serve it, on the device and at the precision asked for."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from birnn_bundle.bundle import Bundle
from birnn_bundle.onnxruntime import ort
from birnn_service.engine.cuda_engine import CudaEngine
from birnn_service.engine.engine import Device, Engine, EngineName, Precision
from birnn_service.engine.gate import Ceiling, GateReport, pass_gate
from birnn_service.engine.gpu_memory import GpuMemory
from birnn_service.engine.onnx_engine import OnnxEngine
from birnn_service.engine.onnx_session import CPU, CUDA, missing_cuda_hint
from birnn_service.errors import EngineError, StartupError

logger = logging.getLogger(__name__)

# A server does not wait longer for shapes that it may never see.
WARM_UP_SECONDS = 20.0
# Precisions that no other engine has.
NATIVE_ONLY = ("bf16", "int8")


@dataclass(frozen=True, slots=True)
class _Choice:
    """What was asked for; see `load_engine`."""

    device: Device
    engine: EngineName
    precision: Precision
    slots: int | None
    gpu_memory: GpuMemory
    ceiling: Ceiling


@dataclass(frozen=True, slots=True)
class Proven:
    """An engine that has passed the gate, and how `auto` came to choose it."""

    engine: Engine
    report: GateReport
    choice: str


def load_engine(
    bundle: Bundle,
    device: Device = "auto",
    *,
    engine: EngineName = "auto",
    precision: Precision = "fp32",
    slots: int | None = None,
    gpu_memory: GpuMemory | None = None,
    ceiling: Ceiling | None = None,
) -> Proven:
    """Load `bundle` as asked and prove it.

    Args:
        bundle: The bundle.
        device: Where to run it.
        engine: What runs it.
        precision: Of the arithmetic.
        slots: Batches that run at the same time; by default what the engine does best.
        gpu_memory: What an engine on a GPU reserves its memory of; by default it has a total of its own.
        ceiling: What this server allows any bundle.

    Raises:
        StartupError: What was asked for does not work or contradicts itself, recurrent nodes ran elsewhere, or
            encodings disagree with the golden ones.
    """
    choice = _Choice(device, engine, precision, slots, gpu_memory or GpuMemory(), ceiling or Ceiling())
    if choice.device == "cpu" or choice.engine == "native":
        if choice.device == "cuda":
            raise StartupError("--engine native runs on CPUs only; leave out --device cuda or --engine native")
        return _on_cpu(bundle, choice, "asked for")
    if CUDA not in ort.get_available_providers():
        if choice.device == "cuda":
            raise StartupError(f"--device cuda: no CUDA in this onnxruntime. {missing_cuda_hint()}")
        return _on_cpu(bundle, choice, "this onnxruntime has no CUDA")
    ort.preload_dlls()
    if choice.device == "cuda":
        return _on_cuda(bundle, choice, "asked for")
    try:
        return _on_cuda(bundle, choice, "CUDA works")
    except StartupError as error:
        return _on_cpu(bundle, choice, f"CUDA does not work: {error}")


def _on_cpu(bundle: Bundle, choice: _Choice, why: str) -> Proven:
    """The native engine where it can, onnxruntime where that is left open and it cannot."""
    if choice.precision == "fp16":
        raise StartupError(f"{bundle.label}: --precision fp16 needs CUDA; this is a CPU ({why})")
    if choice.engine == "onnxruntime":
        return _onnxruntime(bundle, choice, why)
    try:
        return _native(bundle, choice, why)
    except StartupError as error:
        if choice.engine == "native" or choice.precision in NATIVE_ONLY:
            raise
        return _onnxruntime(bundle, choice, f"{why}; {error}")


def _native(bundle: Bundle, choice: _Choice, why: str) -> Proven:
    """The native engine; at precision `auto` in bf16 where the manifest allows it, and it passes the gate."""
    try:
        from birnn_service.engine.native_engine import NativeEngine, is_fast
    except ImportError as error:
        raise StartupError(f"{bundle.label}: the native engine is not installed: {error}") from error
    if choice.engine == "auto" and choice.precision not in NATIVE_ONLY and not is_fast():
        raise StartupError("the native engine has no AVX2 or AVX-512 kernels here")
    if choice.precision in NATIVE_ONLY or (
        choice.precision == "auto" and bundle.manifest.reduced_precision is not None
    ):
        try:
            precision: Literal["bf16", "int8"] = "int8" if choice.precision == "int8" else "bf16"
            engine = NativeEngine(bundle, precision=precision, slots=choice.slots)
            return Proven(engine, pass_gate(bundle, engine, choice.ceiling), why)
        except StartupError as error:
            if choice.precision in NATIVE_ONLY:
                raise
            why = f"{why}; {error}"
    engine = NativeEngine(bundle, slots=choice.slots)
    return Proven(engine, pass_gate(bundle, engine, choice.ceiling), why)


def _on_cuda(bundle: Bundle, choice: _Choice, why: str) -> Proven:
    """onnxruntime on CUDA; at precision `auto` in fp16 where the manifest allows it, and it passes the gate."""
    if choice.precision in NATIVE_ONLY:
        raise StartupError(
            f"{bundle.label}: --precision {choice.precision} needs the native engine, on a CPU; CUDA has fp16"
        )
    cell = bundle.manifest.cell
    if not cell.cuda:
        raise StartupError(
            f"{bundle.label}: its cell ({cell.name}) runs on CPUs only, for onnxruntime's CUDA provider has no kernel "
            "for it; serve it with --device cpu or auto, or train with tanh, sigmoid and reset_after=True"
        )
    if choice.precision == "fp16" or (choice.precision == "auto" and bundle.manifest.reduced_precision is not None):
        try:
            return _cuda(bundle, "fp16", choice, why)
        except StartupError as error:
            if choice.precision == "fp16":
                raise
            why = f"{why}; {error}"
    return _cuda(bundle, "fp32", choice, why)


def _cuda(bundle: Bundle, precision: Literal["fp32", "fp16"], choice: _Choice, why: str) -> Proven:
    engine = CudaEngine(bundle, precision=precision, slots=choice.slots, gpu_memory=choice.gpu_memory)
    try:
        report = pass_gate(bundle, engine, choice.ceiling)
        _refuse_strays(bundle, engine.placement(), CUDA)
        warm, shapes = engine.warm_up(WARM_UP_SECONDS)
    except BaseException as error:
        # Its memory is wanted for the next try.
        engine.close()
        if isinstance(error, EngineError):
            raise StartupError(f"{bundle.label}: {error}") from error
        raise
    logger.info("encoder %s: %d of %d shapes of batches were run to warm up", bundle.label, warm, shapes)
    return Proven(engine, report, why)


def _onnxruntime(bundle: Bundle, choice: _Choice, why: str) -> Proven:
    if choice.precision in NATIVE_ONLY:
        raise StartupError(
            f"{bundle.label}: onnxruntime has no {choice.precision} on CPUs; use --engine native or --precision fp32"
        )
    engine = OnnxEngine(bundle, slots=choice.slots)
    report = pass_gate(bundle, engine, choice.ceiling)
    _refuse_strays(bundle, engine.placement(), CPU)
    return Proven(engine, report, why)


def _refuse_strays(bundle: Bundle, placement: Mapping[str, str], provider: str) -> None:
    """Raises StartupError if a recurrent node has run elsewhere than on `provider`."""
    strays = {node: found for node, found in placement.items() if found != provider}
    if strays:
        raise StartupError(f"{bundle.label}: asked for {provider}, but onnxruntime ran {strays}")
