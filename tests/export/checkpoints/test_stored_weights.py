"""Files that are damaged, dangerous or of another kind are refused, each with its own reason."""

import argparse
import gzip
import io
import lzma
import pickle
import re
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from birnn_export.checkpoints.stored_weights import from_state_dict, read_weights
from birnn_export.training.checkpoint import CheckpointError
from tests.export.checkpoints.foreign_modules import Model


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as raised:
        read_weights(path)
    return str(raised.value)


def test_pickled_objects_are_refused_by_name_and_never_unpickled(tmp_path: Path) -> None:
    torch.save(Model(nn.GRU), tmp_path / "model.pt")
    message = refusal(tmp_path / "model.pt")
    assert "holds pickled Python objects (tests.export.checkpoints.foreign_modules.Model)" in message
    assert "torch.save(model.state_dict(), FILE)" in message


class Trap:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (str(self.path),)  # type: ignore[attr-defined]


def test_code_inside_a_pickle_does_not_run(tmp_path: Path) -> None:
    trap = Trap()
    trap.path = tmp_path / "ran"  # type: ignore[attr-defined]
    torch.save({"rnn.weight_ih_l0": trap}, tmp_path / "trap.pt")
    assert "pickled Python objects" in refusal(tmp_path / "trap.pt")
    assert not (tmp_path / "ran").exists()


def write(weights: dict[str, Any], path: Path, kind: str) -> Path:
    if kind == "safetensors":
        save_file(weights, path)
    elif kind == "legacy":
        torch.save(weights, path, _use_new_zipfile_serialization=False)
    elif kind == "hdf5":
        with h5py.File(path, "w") as file:
            for name, values in weights.items():
                file[name] = values.numpy()
    else:
        torch.save(weights, path)
    return path


KINDS = ["zip", "legacy", "safetensors", "hdf5"]


@pytest.mark.parametrize("name", ["a.pt", "a.safetensors", "a.keras", "a.h5", "a.bin", "weights.th", "weights"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_is_known_by_its_first_bytes_whatever_its_name(tmp_path: Path, kind: str, name: str) -> None:
    weights = {"w": torch.tensor([1.5, -2.0])}
    assert read_weights(write(weights, tmp_path / name, kind)).tensors["w"].tolist() == [1.5, -2.0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("kept", [0.5, 0.99])
def test_a_file_that_is_cut_off_is_said_to_be(tmp_path: Path, kind: str, kept: float) -> None:
    path = write(Model(nn.GRU).state_dict(), tmp_path / "weights", kind)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    assert re.search("(is|is a ZIP archive that is) damaged or cut off; copy or download it again", refusal(path))


def archived(content: bytes) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("weights.th"), io.BytesIO(content))
    return file.getvalue()


def zipped(**files: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in files.items():
            archive.writestr(name.replace("_", "."), content)
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty; copy or download the file again"),
        (gzip.compress(b"weights", mtime=0), "is compressed by gzip; unpack it first (gunzip"),
        (lzma.compress(b"weights"), "is compressed by xz; unpack it first (unxz"),
        (archived(b""), "is a tar archive; unpack it first (tar -xf)"),
        (zipped(model_pt=b"", readme_md=b""), "is a ZIP archive of model.pt, readme.md; unpack it first"),
        (zipped(w_npy=b""), "holds NumPy arrays; save them with safetensors.numpy.save_file"),
        (zipped(config_json=b"{}"), "is no Keras 3 model"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1", "is a pointer of Git LFS, not the file itself"),
        (b"\n<!DOCTYPE html><html>", "is a web page, as a download gives that asks for something first"),
        (pickle.dumps({"w": [1.5]}), "is a pickle that torch.save did not write"),
        (b"neither here nor there \x1b[31m", r"begins with b'neither here nor there \x1b[31m', as no file of weights"),
    ],
    ids=lambda value: value[:24] if isinstance(value, str) else "",
)
def test_a_file_of_another_kind_is_told_as_such(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "model.pt").write_bytes(content)
    assert message in refusal(tmp_path / "model.pt")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol 4")
@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_of_another_protocol_is_to_be_saved_again(tmp_path: Path, zipped: bool) -> None:
    torch.save({"w": torch.ones(2)}, tmp_path / "w.pt", pickle_protocol=4, _use_new_zipfile_serialization=zipped)
    message = refusal(tmp_path / "w.pt")
    assert "save it again with torch.save(model.state_dict(), FILE) and no pickle_protocol" in message
    assert "weights_only" not in message


def test_a_missing_file_and_a_lone_tensor_are_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none.pt").endswith("no such file")
    torch.save(torch.ones(3), tmp_path / "tensor.pt")
    assert "holds a Tensor, no dictionary of weights" in refusal(tmp_path / "tensor.pt")


@pytest.mark.parametrize("kind", ["zip", "legacy"])
def test_settings_and_scores_beside_weights_are_passed_over(tmp_path: Path, kind: str) -> None:
    beside = {"opt": argparse.Namespace(lr=0.1), "best": np.float64(0.5), "curve": np.ones(3), "folder": tmp_path}
    path = write({"w": torch.tensor([1.5]), **beside}, tmp_path / "model.pt", kind)
    assert {name: values.tolist() for name, values in read_weights(path).tensors.items()} == {"w": [1.5]}


@pytest.mark.filterwarnings("ignore:.*quantize_per_tensor")
def test_sparse_quantized_and_listed_tensors_are_read() -> None:
    table = torch.tensor([[0.0, 1.5], [0.0, -2.0]])
    quantized = torch.quantize_per_tensor(table, 0.5, 0, torch.qint8)
    tensors = from_state_dict({"a": table.to_sparse(), "models": [{"b": quantized}], "optimizer_net.c": table})
    assert tensors.keys() == {"a", "models.0.b", "optimizer_net.c"}
    for values in tensors.values():
        assert values.tolist() == table.tolist()


@pytest.mark.filterwarnings("ignore:.*torch.jit", "ignore:.*TorchScript")
def test_an_archive_of_torchscript_is_told_from_a_damaged_file(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(nn.Linear(2, 1)), tmp_path / "model.pt")
    assert "is a TorchScript archive; save its weights" in refusal(tmp_path / "model.pt")


@pytest.mark.parametrize("name", ["optimizer", "optim", "adam_g"])
def test_the_state_of_an_optimizer_is_left_out(name: str) -> None:
    model = nn.Linear(2, 2)
    adam = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    adam.step()
    content = {"model": {"w": torch.ones(2)}, name: adam.state_dict(), "optimizer_states": [adam.state_dict()]}
    assert from_state_dict(content).keys() == {"model.w"}
    assert from_state_dict({"w": torch.ones(2), "optim.state.0.exp_avg": torch.ones(2)}).keys() == {"w"}
    assert from_state_dict({"state.0.weight": torch.ones(2)}).keys() == {"state.0.weight"}


def test_a_tensor_without_values_is_named() -> None:
    with pytest.raises(CheckpointError, match=r"head\.weight is no array of numbers"):
        from_state_dict({"head.weight": torch.ones(2, device="meta")})


def test_a_damaged_keras_archive_is_said_to_be(tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", "{}" + " " * 5000)
        archive.writestr("model.weights.h5", bytes(range(256)) * 40)
    content = bytearray(path.read_bytes())
    start = content.index(b"model.weights.h5") + 20
    content[start : start + 40] = b"x" * 40
    path.write_bytes(content)
    assert "is damaged or cut off" in refusal(path)


def test_bfloat16_of_keras_is_read(tmp_path: Path) -> None:
    values = torch.tensor([[1.5, -2.0, 3e-5]]).bfloat16()
    with h5py.File(tmp_path / "w.weights.h5", "w") as file:
        file["layers/dense/vars/0"] = values.view(torch.uint16).numpy().view("V2")
        file["layers/dense/vars/0"].attrs["dtype"] = "bfloat16"
        file["layers/dense/vars/1"] = h5py.Empty("f")
        file["optimizer/vars/2"] = values.view(torch.uint16).numpy().view("V2")
        file["optimizer/vars/2"].attrs["dtype"] = "bfloat16"
    tensors = read_weights(tmp_path / "w.weights.h5").tensors
    assert tensors["layers/dense/vars/0"].tolist() == values.float().tolist()
    assert tensors.keys() == {"layers/dense/vars/0"}
