import _ctypes
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

from birnn_bundle.bundle import Bundle
from birnn_bundle.precisions import HalfPrecision
from birnn_bundle.ragged import RaggedBatch
from birnn_native import library
from birnn_native.library import NativeUnavailableError, instruction_sets
from birnn_native.recurrent_graph import UnsupportedGraphError, read_graph
from birnn_service.engine import native_engine
from birnn_service.engine.engine import Engine, Output
from birnn_service.engine.gate import pass_gate
from birnn_service.engine.loading import load_engine
from birnn_service.engine.native_engine import NativeEngine
from birnn_service.engine.stored_graph import stored_graph
from birnn_service.errors import EngineError, StartupError
from tests.service.engine.bundles import allowing

MODELS = Path(__file__).parents[3] / "models"

try:
    SETS = instruction_sets()
except NativeUnavailableError as error:
    pytest.skip(str(error), allow_module_level=True)

HAS_BF16 = any("bf16" in precisions for precisions in SETS.values())
needs_bf16 = pytest.mark.skipif(not HAS_BF16, reason="this processor cannot multiply bf16")


@pytest.fixture(scope="module", params=["smiles", "text"])
def bundle(request: pytest.FixtureRequest) -> Bundle:
    return Bundle.load(MODELS / request.param / "1")


@pytest.fixture
def allowing_bf16(bundle: Bundle) -> Bundle:
    return allowing(bundle, HalfPrecision(tolerance=0.05))


def unavailable() -> dict[str, bool]:
    raise NativeUnavailableError("no compiler here")


@pytest.mark.parametrize("name", SETS)
def test_every_instruction_set_passes_the_gate(bundle: Bundle, name: str) -> None:
    engine = NativeEngine(bundle, instruction_set=name)
    report = pass_gate(bundle, engine)
    assert max(report.pooled, report.tokens) <= bundle.manifest.tolerance
    assert name in engine.info.engine


def test_it_agrees_with_onnxruntime_on_mixed_lengths(bundle: Bundle) -> None:
    random = np.random.default_rng(1)
    batch = RaggedBatch.from_lists(
        random.integers(0, bundle.manifest.vocab_size, length) for length in random.integers(1, 120, 50)
    )
    engines: list[Engine] = [NativeEngine(bundle), load_engine(bundle, "cpu", engine="onnxruntime").engine]
    for output in Output:
        native, onnxruntime = (engine.run(batch, output) for engine in engines)
        np.testing.assert_allclose(native, onnxruntime, atol=2e-5)


def test_on_a_cpu_auto_takes_it_and_the_reply_of_two_slots_is_the_same(bundle: Bundle) -> None:
    engine = load_engine(bundle, "cpu").engine
    assert engine.info.engine.startswith("native")
    assert engine.info.packed
    assert engine.run(bundle.golden.batch, Output.POOLED, 2).tobytes() == (
        engine.run(bundle.golden.batch, Output.POOLED).tobytes()
    )


def test_without_kernels_onnxruntime_serves_and_says_why(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native_engine, "instruction_sets", unavailable)
    proven = load_engine(bundle, "cpu")
    assert proven.engine.info.engine.startswith("onnxruntime")
    assert "no compiler here" in proven.choice
    with pytest.raises(StartupError, match="no compiler here"):
        load_engine(bundle, "cpu", engine="native")


def test_a_library_that_was_not_built_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(library, "__file__", str(tmp_path / "library.py"))
    library.load_library.cache_clear()
    with pytest.raises(NativeUnavailableError, match=r"C\+\+17 compiler"):
        library.load_library()
    (tmp_path / "_kernels.so").write_bytes(b"not a library")
    with pytest.raises(NativeUnavailableError, match="cannot be loaded"):
        library.load_library()
    shutil.copy(_ctypes.__file__, tmp_path / "_kernels.so")
    with pytest.raises(NativeUnavailableError, match=r"another version \(birnn_\w+ is missing\)"):
        library.load_library()


def test_a_processor_without_known_vector_instructions_is_left_to_onnxruntime(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native_engine, "instruction_sets", lambda: {"portable": ("fp32", "int8")})
    assert load_engine(bundle, "cpu").engine.info.engine.startswith("onnxruntime")
    assert "portable" in load_engine(bundle, "cpu", engine="native").engine.info.engine
    with pytest.raises(StartupError, match="bf16 needs a processor"):
        load_engine(allowing(bundle, HalfPrecision(tolerance=0.05)), "cpu", precision="bf16")


@needs_bf16
def test_bf16_is_taken_where_it_is_asked_for_and_allowed(allowing_bf16: Bundle) -> None:
    for precision in ("bf16", "auto"):
        proven = load_engine(allowing_bf16, "cpu", precision=precision)
        assert proven.engine.info.precision == "bfloat16"
        assert proven.report.cosine >= 0.9999
    assert load_engine(allowing_bf16, "cpu").engine.info.precision == "float32"


def test_auto_takes_the_fastest_that_is_allowed_and_passes_and_says_so(
    allowing_bf16: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only bf16 is allowed, so that what else the kernels can do, and in which order, changes the reasons only."""
    found = load_engine(allowing_bf16, "cpu", precision="auto")
    if "bf16" in native_engine.native_precisions():
        assert found.engine.info.precision == "bfloat16"
        assert "bf16 is the fastest precision that is allowed" in found.choice
    monkeypatch.setattr(native_engine, "native_precisions", lambda: ["int8", "fp32", "bf16"])
    found = load_engine(allowing_bf16, "cpu", precision="auto")
    # What is slower than float32 is no gain.
    assert found.engine.info.precision == "float32"
    assert "not int8: " in found.choice
    assert "does not allow int8, which was not measured" in found.choice
    monkeypatch.setattr(native_engine, "native_precisions", lambda: ["fp32"])
    assert load_engine(allowing_bf16, "cpu", precision="auto").engine.info.precision == "float32"
    found = load_engine(allowing_bf16, "cpu", engine="onnxruntime", precision="auto")
    assert found.engine.info.precision == "float32"
    assert "onnxruntime computes in fp32 only" in found.choice


@needs_bf16
def test_bf16_that_the_manifest_does_not_allow_is_refused(bundle: Bundle) -> None:
    forbidden = allowing(bundle, None)
    with pytest.raises(StartupError, match="does not allow bfloat16"):
        load_engine(forbidden, "cpu", precision="bf16")
    assert load_engine(forbidden, "cpu", precision="auto").engine.info.precision == "float32"


@needs_bf16
@pytest.mark.parametrize(
    ("reduced", "message"),
    [(HalfPrecision(tolerance=1e-4), "disagree"), (HalfPrecision(tolerance=0.1, min_cosine=1 - 1e-9), "cosine")],
)
def test_bf16_that_is_further_off_than_allowed_is_refused(bundle: Bundle, reduced: HalfPrecision, message: str) -> None:
    strict = allowing(bundle, reduced)
    with pytest.raises(StartupError, match=message):
        load_engine(strict, "cpu", precision="bf16")
    proven = load_engine(strict, "cpu", precision="auto")
    assert proven.engine.info.precision == "float32"
    assert message in proven.choice


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"device": "cuda", "engine": "native"}, "runs on CPUs only"),
        ({"device": "cpu", "precision": "fp16"}, "needs CUDA"),
        ({"device": "cpu", "engine": "onnxruntime", "precision": "bf16"}, "no bf16 on CPUs"),
        ({"device": "cpu", "engine": "onnxruntime", "precision": "int8"}, "no int8 on CPUs"),
    ],
)
def test_contradictions_are_startup_errors(bundle: Bundle, asked: dict[str, str], message: str) -> None:
    with pytest.raises(StartupError, match=message):
        load_engine(bundle, **asked)  # type: ignore[arg-type]


def test_an_id_outside_the_vocabulary_is_an_engine_error(bundle: Bundle) -> None:
    with pytest.raises(EngineError, match="an id is 1000000"):
        NativeEngine(bundle).run(RaggedBatch.from_lists([[10**6]]), Output.POOLED)


def changed(bundle: Bundle, change: str) -> onnx.ModelProto:
    """A graph with one thing that only onnxruntime can run."""
    model = stored_graph(bundle, Output.POOLED).complete()
    (node,) = (node for node in model.graph.node if node.op_type == "GRU")
    match change:
        case "clip":
            node.attribute.append(onnx.helper.make_attribute("clip", 3.0))
        case "direction":
            node.attribute.remove(next(item for item in node.attribute if item.name == "direction"))
        case "activations":
            node.attribute.append(onnx.helper.make_attribute("activations", ["HardSigmoid", "Tanh"] * 2))
        case "initial states":
            node.input.append("h0")
        case "sequence lengths":
            node.input[4] = ""
        case "no float32 constant":
            node.input[2] = "elsewhere"
        case "neither an embedding":
            node.input[0] = "elsewhere"
        case "kinds":
            model.graph.node.remove(node)
    return model


@pytest.mark.parametrize(
    "change",
    ["clip", "direction", "activations", "initial states", "sequence lengths", "no float32 constant",
     "neither an embedding", "kinds"],
)  # fmt: skip
def test_a_graph_that_it_cannot_run_is_named(bundle: Bundle, change: str) -> None:
    with pytest.raises(UnsupportedGraphError, match=change):
        read_graph(changed(bundle, change))
