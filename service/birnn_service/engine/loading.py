"""From a bundle to an engine that is proven to serve it, on the device and at the precision asked for."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar, cast

from birnn_bundle.bundle import Bundle
from birnn_bundle.onnxruntime import ort
from birnn_service.engine.cuda_engine import CudaEngine
from birnn_service.engine.cuda_runtime import preload
from birnn_service.engine.engine import (
    PRECISION_NAMES,
    CudaPrecision,
    Device,
    Engine,
    EngineName,
    NativePrecision,
    Precision,
)
from birnn_service.engine.gate import Ceiling, GateReport, allowed_record, pass_gate
from birnn_service.engine.gpu_memory import GpuMemory
from birnn_service.engine.onnx_engine import OnnxEngine
from birnn_service.engine.onnx_session import CPU, CUDA, missing_cuda_hint
from birnn_service.errors import EngineError, StartupError

logger = logging.getLogger(__name__)

AnyPrecision = TypeVar("AnyPrecision", NativePrecision, CudaPrecision)
# Precisions that no other engine computes in.
NATIVE_ONLY = ("bf16", "int8")
# A server does not wait longer for shapes that it may never see.
WARM_UP_SECONDS = 20.0


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
    """An engine that has passed the gate.

    Attributes:
        engine: The engine.
        report: What the gate found.
        choice: How `auto` came to choose it.
        is_fallback: Whether `auto` could not have the device or the engine that it tried first.
    """

    engine: Engine
    report: GateReport
    choice: str
    is_fallback: bool = False


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
    preload()
    if choice.device == "cuda":
        return _on_cuda(bundle, choice, "asked for")
    try:
        return _on_cuda(bundle, choice, "CUDA works")
    except StartupError as error:
        return replace(_on_cpu(bundle, choice, f"CUDA does not work: {error}"), is_fallback=True)


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
        return replace(_onnxruntime(bundle, choice, f"{why}; {error}"), is_fallback=True)


def _native(bundle: Bundle, choice: _Choice, why: str) -> Proven:
    """The native engine; at precision `auto` in the fastest that the manifest allows and that passes the gate."""
    try:
        from birnn_service.engine.native_engine import NativeEngine, is_fast, native_precisions
    except ImportError as error:
        raise StartupError(f"{bundle.label}: the native engine is not installed: {error}") from error
    if choice.engine == "auto" and choice.precision not in NATIVE_ONLY and not is_fast():
        raise StartupError("the native engine has no AVX2 or AVX-512 kernels here")

    def load(precision: NativePrecision, why: str) -> Proven:
        # Checked before the weights are packed, which takes time.
        if precision != "fp32":
            allowed_record(bundle, PRECISION_NAMES[precision])
        engine = NativeEngine(bundle, precision=precision, slots=choice.slots)
        return Proven(engine, pass_gate(bundle, engine, choice.ceiling), why)

    if choice.precision != "auto":
        return load(cast(NativePrecision, choice.precision), why)
    here = native_precisions()
    # Slower ones than float32 would be no gain.
    faster = here[: here.index("fp32")] if here else []
    return _first((*faster, "fp32"), load, why)


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

    def load(precision: CudaPrecision, why: str) -> Proven:
        if precision == "fp16":
            allowed_record(bundle, PRECISION_NAMES[precision])
        return _cuda(bundle, precision, choice, why)

    if choice.precision != "auto":
        return load(cast(CudaPrecision, choice.precision), why)
    candidates: tuple[CudaPrecision, ...] = ("fp16", "fp32")
    return _first(candidates, load, why)


def _first(candidates: Sequence[AnyPrecision], load: Callable[[AnyPrecision, str], Proven], why: str) -> Proven:
    """The first precision that can be loaded, the last of which is float32; says why those before it cannot."""
    for precision in candidates[:-1]:
        try:
            return load(precision, f"{why}; {precision} is the fastest precision that is allowed")
        except StartupError as error:
            why = f"{why}; not {precision}: {error}"
    return load(candidates[-1], why)


def _cuda(bundle: Bundle, precision: CudaPrecision, choice: _Choice, why: str) -> Proven:
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
    if choice.precision == "auto":
        why = f"{why}; onnxruntime computes in fp32 only on CPUs"
    engine = OnnxEngine(bundle, slots=choice.slots)
    report = pass_gate(bundle, engine, choice.ceiling)
    _refuse_strays(bundle, engine.placement(), CPU)
    return Proven(engine, report, why)


def _refuse_strays(bundle: Bundle, placement: Mapping[str, str], provider: str) -> None:
    """Raises StartupError if a recurrent node has run elsewhere than on `provider`."""
    strays = {node: found for node, found in placement.items() if found != provider}
    if strays:
        raise StartupError(f"{bundle.label}: asked for {provider}, but onnxruntime ran {strays}")
