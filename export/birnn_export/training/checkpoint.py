"""The checkpoint folder: what training writes, what a resume and `birnn export` read. JSON and safetensors, no pickle.

| file | what |
|---|---|
| config.json | `EncoderConfig`, kind of the tokenizer, longest sequence |
| tokenizer.json | the tokenizer |
| weights.safetensors | state of the `SequenceEncoder` with the lowest validation loss so far |
| training.safetensors | all it takes to go on: current weights, heads, AdamW's moments, the position (metadata) |
| training.json | settings, corpus, metrics: the facts for a model card |
| metrics.jsonl, curve.png | one line an evaluation; the curve of losses, drawn when training ends |

Each file is replaced atomically, so that the folder can be read at any moment of a training.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from birnn_bundle.atomic_file import replace_bytes
from birnn_bundle.errors import BundleError
from birnn_bundle.tokenizer import Tokenizer, load_tokenizer
from birnn_export.encoders import EncoderConfig, SequenceEncoder

SCHEMA_VERSION = 1
CONFIG, TOKENIZER, WEIGHTS = "config.json", "tokenizer.json", "weights.safetensors"
TRAINING, STATE, METRICS, CURVE = "training.json", "training.safetensors", "metrics.jsonl", "curve.png"

_POSITION = "position"
_MODEL, _OPTIMIZER, _HEADS = "model.", "optimizer.", "model.heads."


class CheckpointError(Exception):
    """A checkpoint folder that is missing, damaged or contradicts itself; the message says which file and how."""


@dataclass(frozen=True)
class LoadedCheckpoint:
    """A trained encoder, in evaluation mode and float32 on the CPU, with what belongs to it.

    training: the content of training.json (data, recipe, objective, sequences, metrics, settings ...).
    """

    encoder: SequenceEncoder
    config: EncoderConfig
    tokenizer: Tokenizer
    max_length: int
    training: dict[str, Any]


def load_encoder(path: Path) -> LoadedCheckpoint:
    """Read the encoder of a checkpoint folder.

    Raises CheckpointError for a missing or damaged file, weights whose names, shapes or types are not those that
    config.json describes, values that are not finite, and a tokenizer of another vocabulary size.
    """
    if not path.is_dir():
        raise CheckpointError(f"{path}: no checkpoint folder there; `birnn train CORPUS -o {path}` writes one")
    config, kind, max_length = _load_config(path / CONFIG)
    try:
        tokenizer = load_tokenizer(kind, _read_text(path / TOKENIZER))
    except BundleError as error:
        raise CheckpointError(f"{path / TOKENIZER}: {error}") from error
    if tokenizer.vocab_size != config.vocab_size:
        raise CheckpointError(
            f"{path / TOKENIZER}: has {tokenizer.vocab_size} tokens, but {CONFIG} says {config.vocab_size}"
        )
    encoder = SequenceEncoder(config)
    _load_weights(encoder, path / WEIGHTS)
    return LoadedCheckpoint(encoder.eval(), config, tokenizer, max_length, read_training(path))


def _load_config(path: Path) -> tuple[EncoderConfig, str, int]:
    values = _read_json(path)
    if values.get("schema_version") != SCHEMA_VERSION:
        raise CheckpointError(
            f"{path}: schema version {values.get('schema_version')!r}; this one reads {SCHEMA_VERSION}"
        )
    encoder, kind, max_length = (values.get(key) for key in ("encoder", "tokenizer", "max_length"))
    if not isinstance(encoder, dict) or not isinstance(kind, str) or not isinstance(max_length, int) or max_length < 1:
        raise CheckpointError(f"{path}: needs an encoder, the kind of its tokenizer and a positive max_length")
    known = {field.name for field in fields(EncoderConfig)}
    if unknown := encoder.keys() - known:
        raise CheckpointError(f"{path}: unknown encoder settings {', '.join(sorted(unknown))}")
    try:
        return EncoderConfig(**encoder), kind, max_length
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: {error}") from error


def _load_weights(encoder: SequenceEncoder, path: Path) -> None:
    weights = _read_tensors(path)
    expected = encoder.state_dict()
    if missing := expected.keys() - weights.keys():
        raise CheckpointError(f"{path}: lacks {', '.join(sorted(missing))}, which {CONFIG} asks for")
    if surplus := weights.keys() - expected.keys():
        raise CheckpointError(f"{path}: holds {', '.join(sorted(surplus))}, which {CONFIG} knows nothing of")
    for name, tensor in weights.items():
        if tensor.shape != expected[name].shape:
            raise CheckpointError(
                f"{path}: {name} is {list(tensor.shape)}, but {CONFIG} makes it {list(expected[name].shape)}"
            )
        if tensor.dtype != torch.float32:
            raise CheckpointError(f"{path}: {name} is {tensor.dtype}, expected torch.float32")
        if not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(f"{path}: {name} holds values that are not finite (NaN or infinite)")
    encoder.load_state_dict(weights)


def read_training(path: Path) -> dict[str, Any]:
    """Content of training.json. Raises CheckpointError when it is missing or damaged."""
    return _read_json(path / TRAINING)


def write_start(
    path: Path, config: EncoderConfig, tokenizer: Tokenizer, max_length: int, training: dict[str, Any]
) -> None:
    """Create the folder with what does not change during training."""
    path.mkdir(parents=True, exist_ok=True)
    values = {
        "schema_version": SCHEMA_VERSION,
        "encoder": asdict(config),
        "tokenizer": tokenizer.kind,
        "max_length": max_length,
    }
    replace_bytes(path / CONFIG, _json(values))
    replace_bytes(path / TOKENIZER, tokenizer.to_json().encode())
    write_training(path, training)


def write_training(path: Path, training: dict[str, Any]) -> None:
    """Replace training.json."""
    replace_bytes(path / TRAINING, _json(training))


def write_weights(path: Path, encoder: SequenceEncoder) -> None:
    """Replace weights.safetensors by the weights that `encoder` has now."""
    replace_bytes(path / WEIGHTS, save(_portable(encoder.state_dict())))


def write_state(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, position: dict[str, Any]) -> None:
    """Replace training.safetensors: weights of `model`, the optimizer's moments and, in one file, the position."""
    tensors = {_MODEL + name: tensor for name, tensor in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"{_OPTIMIZER}{name}:{key}"] = torch.as_tensor(value)
    replace_bytes(path / STATE, save(_portable(tensors), {_POSITION: json.dumps(position)}))


def read_state(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Bring `model` and `optimizer` back to where `write_state` left them and return the position.

    Raises CheckpointError when training.safetensors is missing, damaged or of another model.
    """
    file = path / STATE
    tensors = _read_tensors(file)
    try:
        with safe_open(file, framework="pt") as opened:
            position = json.loads((opened.metadata() or {})[_POSITION])
        model.load_state_dict({k.removeprefix(_MODEL): v for k, v in tensors.items() if k.startswith(_MODEL)})
        parameters = dict(model.named_parameters())
        for key, value in tensors.items():
            if key.startswith(_OPTIMIZER):
                name, _, slot = key.removeprefix(_OPTIMIZER).rpartition(":")
                parameter = parameters[name]
                # AdamW keeps its step counter on the CPU.
                optimizer.state[parameter][slot] = value if value.ndim == 0 else value.to(parameter.device)
    except (KeyError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{file}: is not the state of this training ({error})") from error
    if not isinstance(position, dict):
        raise CheckpointError(f"{file}: holds no position")
    return position


def read_heads(path: Path) -> dict[str, Tensor]:
    """What the heads of the run in a folder held at its last step, as `descriptors.head.weight`.

    Nothing where there is no state. Raises CheckpointError when training.safetensors is damaged.
    """
    file = path / STATE
    if not file.exists():
        return {}
    tensors = _read_tensors(file)
    return {name.removeprefix(_HEADS): tensor for name, tensor in tensors.items() if name.startswith(_HEADS)}


def _portable(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: is missing") from error
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: damaged or cut off ({error})") from error


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: is missing") from error
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error})") from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(_read_text(path))
    except json.JSONDecodeError as error:
        raise CheckpointError(f"{path}: is not JSON ({error})") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: holds no JSON object")
    return values


def _json(values: dict[str, Any]) -> bytes:
    return (json.dumps(values, indent=2, ensure_ascii=False) + "\n").encode()
