"""What engines compute with is in memory, and was checked; a graph that is not one of ours is not run."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from birnn_bundle.bundle import Bundle
from birnn_bundle.precisions import HalfPrecision
from birnn_service.engine.cuda_engine import CudaEngine
from birnn_service.engine.engine import Engine, Output
from birnn_service.engine.gate import pass_gate
from birnn_service.engine.native_engine import NativeEngine
from birnn_service.engine.onnx_engine import OnnxEngine
from birnn_service.engine.onnx_session import CPU
from birnn_service.engine.stored_graph import stored_graph
from birnn_service.errors import StartupError
from tests.service.engine.bundles import allowing

MODELS = Path(__file__).parents[3] / "models"
HALF = HalfPrecision(tolerance=5e-3, min_cosine=0.9999)
cuda_engine_on_cpu = partial(CudaEngine, provider=CPU, allocate=lambda size: np.empty(size, dtype=np.uint8))


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return Bundle.load(MODELS / "smiles-small" / "1")


@pytest.mark.parametrize(
    "make",
    [
        NativeEngine,
        partial(OnnxEngine, slots=2),
        cuda_engine_on_cpu,
        partial(cuda_engine_on_cpu, precision="fp16"),
    ],
    ids=["native", "onnxruntime", "cuda", "cuda-fp16"],
)
def test_no_engine_opens_a_file_of_the_bundle(tmp_path: Path, make: Callable[[Bundle], Engine]) -> None:
    shutil.copytree(MODELS / "smiles-small" / "1", tmp_path / "1")
    loaded = Bundle.load(tmp_path / "1")
    shutil.rmtree(tmp_path / "1")
    halved = allowing(loaded, HALF)
    pass_gate(halved, make(halved))


def changed(bundle: Bundle, change: Callable[[onnx.ModelProto], object]) -> Bundle:
    model = onnx.load_from_string(bundle.files["pooled.onnx"])
    change(model)
    return replace(bundle, files={**bundle.files, "pooled.onnx": model.SerializeToString()})


def loop(model: onnx.ModelProto) -> None:
    body = helper.make_graph([], "body", [], [])
    model.graph.node.append(helper.make_node("Loop", ["", ""], [], body=body))


def subgraph(model: onnx.ModelProto) -> None:
    model.graph.node[0].attribute.append(helper.make_attribute("body", helper.make_graph([], "body", [], [])))


def operator_of_another_domain(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Gather", ["embedding", "ids"], ["x"], domain="com.example"))


def many_nodes(model: onnx.ModelProto) -> None:
    model.graph.node.extend(helper.make_node("Shape", ["ids"], [f"shape{number}"]) for number in range(10_000))


def function(model: onnx.ModelProto) -> None:
    model.functions.append(helper.make_function("ai", "f", [], [], [], []))


def endless_range(model: onnx.ModelProto) -> None:
    constant = next(tensor for tensor in model.graph.initializer if tensor.name == "one")
    constant.CopyFrom(numpy_helper.from_array(np.array(1 << 50, dtype=np.int64), "one"))


def stored_outside(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].external_data[0].value = "/etc/passwd"


def stored_behind_the_end(model: onnx.ModelProto) -> None:
    next(entry for entry in model.graph.initializer[0].external_data if entry.key == "offset").value = "999999999"


def fewer_rows(model: onnx.ModelProto) -> None:
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == "embedding")
    tensor.dims[0] -= 1


def negative_shape(model: onnx.ModelProto) -> None:
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == "W0")
    tensor.dims[:] = [-2, -384, 64]


def other_inputs(model: onnx.ModelProto) -> None:
    model.graph.input[1].name = "counts"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (loop, "operator 'Loop'"),
        (subgraph, "neither number nor text"),
        (operator_of_another_domain, "operator 'Gather'"),
        (many_nodes, "100\\d\\d nodes, too many for 1 layers"),
        (function, "functions"),
        (endless_range, "constant 'one'"),
        (stored_outside, "'/etc/passwd', not in the bundle"),
        (stored_behind_the_end, "do not lie within 'weights.bin'"),
        (fewer_rows, r"embedding has the shape \[\(218, 64\)\]"),
        (negative_shape, "weights 'W0' do not lie within"),
        (other_inputs, "inputs and outputs"),
    ],
)
def test_a_graph_that_no_export_writes_is_refused(
    bundle: Bundle, change: Callable[[onnx.ModelProto], object], words: str
) -> None:
    with pytest.raises(StartupError, match=rf"smiles-small/1, pooled\.onnx: cannot read the graph: .*({words})"):
        stored_graph(changed(bundle, change), Output.POOLED)


def test_bytes_that_are_no_graph_are_refused(bundle: Bundle) -> None:
    with pytest.raises(StartupError, match="cannot read the graph"):
        stored_graph(replace(bundle, files={**bundle.files, "pooled.onnx": b"not a graph"}), Output.POOLED)
