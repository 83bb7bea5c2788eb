"""What a manifest says of its encoder's layers, in bundles of today and of before layers could differ."""

import json
from pathlib import Path
from typing import Any

import pytest

from birnn_bundle.errors import BundleError
from birnn_bundle.manifest import Manifest

TEXT = (Path(__file__).parents[2] / "models" / "text" / "1" / "manifest.json").read_text(encoding="utf-8")


def changed(**changes: Any) -> Manifest:
    return Manifest.from_json(json.dumps(json.loads(TEXT) | changes))


def test_a_manifest_of_equal_layers_is_read_and_says_no_more_than_before() -> None:
    manifest = Manifest.from_json(TEXT)
    assert json.loads(TEXT)["layers"] == 1
    assert "hidden_sizes" not in TEXT + manifest.to_json()
    assert manifest.layer_sizes == (manifest.hidden_size,) * manifest.layers


def test_layers_of_different_sizes_are_kept() -> None:
    hidden = Manifest.from_json(TEXT).hidden_size
    manifest = changed(layers=2, hidden_sizes=[7, hidden])
    assert Manifest.from_json(manifest.to_json()) == manifest
    assert manifest.layer_sizes == (7, hidden)


@pytest.mark.parametrize("sizes", [[], [7], [7, 8], [256, 256], [7, 8, 256], [0, 256], [-1, 256]])
def test_sizes_that_contradict_the_rest_are_refused(sizes: list[int]) -> None:
    with pytest.raises(BundleError, match="hidden_sizes"):
        changed(layers=2, hidden_size=256, hidden_sizes=sizes)
