"""Files that are damaged, dangerous or of another kind are refused, each with its own reason."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from export.checkpoints.stored_weights import read_weights
from export.training.checkpoint import CheckpointError
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


@pytest.mark.parametrize("file", ["model.pt", "old.pth", "model.safetensors"])
@pytest.mark.parametrize("kept", [0, 0.5, 0.99])
def test_a_file_that_is_cut_off_is_said_to_be(tmp_path: Path, file: str, kept: float) -> None:
    weights, path = Model(nn.GRU).state_dict(), tmp_path / file
    if file.endswith(".safetensors"):
        save_file(weights, path)
    else:
        torch.save(weights, path, _use_new_zipfile_serialization=file != "old.pth")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    assert f"{path}: is damaged, cut off or of another kind than its name says" in refusal(path)


@pytest.mark.parametrize("file", ["a.keras", "a.h5", "a.weights.h5", "a.pt", "a.safetensors"])
def test_a_file_of_another_kind_is_said_to_be(tmp_path: Path, file: str) -> None:
    (tmp_path / file).write_text("neither here nor there " * 20)
    assert "is damaged, cut off or of another kind" in refusal(tmp_path / file)


def test_a_missing_file_an_unknown_suffix_and_a_lone_tensor_are_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none.pt").endswith("no such file")
    (tmp_path / "model.pkl").touch()
    assert ".pkl is not one of .pt, .pth" in refusal(tmp_path / "model.pkl")
    torch.save(torch.ones(3), tmp_path / "tensor.pt")
    assert "holds a Tensor, no dictionary of weights" in refusal(tmp_path / "tensor.pt")
