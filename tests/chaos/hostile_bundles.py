"""Bundles as their worst authors would write them: one wrong thing each, and everything else in order."""

import hashlib
import json
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper
from safetensors.numpy import load_file, save_file

from tests.e2e.server_process import MODELS

HEALTHY = "smiles-small"
NESTED = "[" * 200_000 + "]" * 200_000
GIB = 1 << 30


def healthy_copy(models: Path, name: str, version: str = "1") -> Path:
    """A good bundle below `models`, named after its folder."""
    folder = models / name / version
    shutil.copytree(MODELS / HEALTHY / "1", folder)
    seal(folder, name=name)
    return folder


def seal(folder: Path, **changes: object) -> None:
    """Write the digests of the files of a bundle into its manifest, and other changes."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    for name in manifest["files"]:
        if (file := folder / name).is_file() and file.stat().st_size < GIB:
            manifest["files"][name] = hashlib.sha256(file.read_bytes()).hexdigest()
    path.write_text(json.dumps({**manifest, **changes}))


def _manifest(**changes: object) -> Callable[[Path], None]:
    return lambda folder: seal(folder, **changes)


def _raw_manifest(change: Callable[[str], str]) -> Callable[[Path], None]:
    def attack(folder: Path) -> None:
        path = folder / "manifest.json"
        path.write_text(change(path.read_text()))

    return attack


def _instead_of(name: str, make: Callable[[Path], object]) -> Callable[[Path], None]:
    def attack(folder: Path) -> None:
        (folder / name).unlink()
        make(folder / name)

    return attack


def _content(name: str, content: str | bytes) -> Callable[[Path], None]:
    def attack(folder: Path) -> None:
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        seal(folder)

    return attack


def _socket(path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    # The path of a socket may have 108 bytes.
    before = Path.cwd()
    os.chdir(path.parent)
    try:
        listener.bind(path.name)
    finally:
        os.chdir(before)
        listener.close()


def _sparse(size: int) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        path.touch()
        os.truncate(path, size)

    return make


def _golden(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def attack(folder: Path) -> None:
        arrays = dict(load_file(folder / "golden.safetensors"))
        change(arrays)
        save_file(arrays, folder / "golden.safetensors")
        seal(folder)

    return attack


def _nan(arrays: dict[str, Any]) -> None:
    arrays["pooled"][0, 0] = np.nan


def _fewer(arrays: dict[str, Any]) -> None:
    arrays["pooled"] = arrays["pooled"][:-1]


def _wide_ids(arrays: dict[str, Any]) -> None:
    arrays["ids"] = arrays["ids"].astype(np.int64) + (1 << 32)


def _off(folder: Path) -> None:
    """Golden vectors that no engine reproduces, and a tolerance that would forgive it."""
    arrays = dict(load_file(folder / "golden.safetensors"))
    arrays["pooled"] = arrays["pooled"] + 0.01
    save_file(arrays, folder / "golden.safetensors")
    seal(folder, tolerance=0.1)


def _graph(change: Callable[[onnx.ModelProto], None]) -> Callable[[Path], None]:
    def attack(folder: Path) -> None:
        model = onnx.load(folder / "pooled.onnx", load_external_data=False)
        change(model)
        (folder / "pooled.onnx").write_bytes(model.SerializeToString())
        seal(folder)

    return attack


def _endless_loop(model: onnx.ModelProto) -> None:
    body = helper.make_graph([], "body", [], [])
    model.graph.node.append(helper.make_node("Loop", ["", ""], [], name="forever", body=body))


def _weights_elsewhere(model: onnx.ModelProto) -> None:
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "../../../../../../etc/passwd"


def _more_tokens_than_rows(folder: Path) -> None:
    content = json.loads((folder / "tokenizer.json").read_text())
    content["vocabulary"] += [f"[{number}C]" for number in range(1000)]
    (folder / "tokenizer.json").write_text(json.dumps(content))
    seal(folder)


def _ids_around_every_sequence(folder: Path) -> None:
    """Ids that are in no vocabulary, put before every sequence."""
    content: dict[str, Any] = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
        "pre_tokenizer": None, "decoder": None,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "X", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
            "special_tokens": {"X": {"id": "X", "ids": [999_999], "tokens": ["X"]}},
        },
        "model": {"type": "WordLevel", "vocab": {"a": 0, "?": 1}, "unk_token": "?"},
    }  # fmt: skip
    (folder / "tokenizer.json").write_text(json.dumps(content))
    seal(folder, tokenizer={"kind": "huggingface", "file": "tokenizer.json"})


def _many_folders(folder: Path) -> None:
    for number in range(1500):
        (folder / f"d{number}").mkdir()


def _linked_out(folder: Path) -> None:
    outside = folder.parents[2] / "outside.bin"
    shutil.copy(folder / "weights.bin", outside)
    (folder / "weights.bin").unlink()
    (folder / "weights.bin").symlink_to(outside)


ATTACKS: dict[str, Callable[[Path], None]] = {
    "manifest-fifo": _instead_of("manifest.json", os.mkfifo),
    "manifest-socket": _instead_of("manifest.json", _socket),
    "manifest-zeros": _instead_of("manifest.json", lambda path: path.symlink_to("/dev/zero")),
    "manifest-folder": _instead_of("manifest.json", Path.mkdir),
    "manifest-huge": _instead_of("manifest.json", _sparse(100 * GIB)),
    "manifest-nested": _raw_manifest(lambda text: NESTED),
    "manifest-deep-key": _raw_manifest(lambda text: text[:-1] + f', "deep": {NESTED}}}'),
    "manifest-binary": _instead_of("manifest.json", lambda path: path.write_bytes(b"\xff\xfe\x00")),
    "manifest-keys": _raw_manifest(lambda text: text[:-1] + "".join(f', "\\u001b{n}": 0' for n in range(5000)) + "}"),
    "manifest-long-key": _raw_manifest(lambda text: text[:-1] + f', "{"k" * 500_000}": 0}}'),
    "manifest-surrogate": _raw_manifest(lambda text: text.replace('"description": "', '"description": "\\ud800')),
    "vocabulary-of-2-40": _manifest(vocab_size=1 << 40),
    "longest-of-2-40": _manifest(max_length=1 << 40),
    "hidden-of-2-62": _manifest(hidden_size=1 << 62, token_dimension=1 << 63, dimension=1 << 64),
    "version-of-text": _manifest(version="1_0"),
    "version-of-2-70": _manifest(version=1 << 70),
    "file-above": _manifest(golden="../golden.safetensors"),
    "file-absolute": _manifest(golden="/etc/passwd"),
    "tokenizer-nested": _content("tokenizer.json", NESTED),
    "tokenizer-fifo": _instead_of("tokenizer.json", os.mkfifo),
    "tokenizer-more-ids": _more_tokens_than_rows,
    "tokenizer-ids-around": _ids_around_every_sequence,
    "weights-zeros": _instead_of("weights.bin", lambda path: path.symlink_to("/dev/zero")),
    "weights-huge": _instead_of("weights.bin", _sparse(1000 * GIB)),
    "weights-linked-out": _linked_out,
    "weights-short": _content("weights.bin", b"\0" * 1000),
    "graph-garbage": _content("pooled.onnx", b"\x0a\xff" * 1000),
    "graph-loop": _graph(_endless_loop),
    "graph-elsewhere": _graph(_weights_elsewhere),
    "golden-nan": _golden(_nan),
    "golden-fewer": _golden(_fewer),
    "golden-wide-ids": _golden(_wide_ids),
    "golden-garbage": _content("golden.safetensors", b"\xff" * 100),
    "golden-off": _off,
    "many-folders": _many_folders,
    "linked-manifest": _instead_of("manifest.json", lambda path: path.symlink_to("/etc/hostname")),
}
