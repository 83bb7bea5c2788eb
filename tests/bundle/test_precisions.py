"""What manifests say of reduced precisions, today and before each had a record of its own."""

import json
from pathlib import Path
from typing import Any

import pytest

from birnn_bundle.errors import BundleError
from birnn_bundle.manifest import Manifest
from birnn_bundle.precision_card import HEADING, precision_section, with_precision_section
from birnn_bundle.precisions import Agreement, PrecisionRecord, Quality, record_of

OLD = json.loads((Path(__file__).parents[2] / "models" / "text" / "1" / "manifest.json").read_text(encoding="utf-8"))
GOLDEN = {
    "sequences": 12,
    "max_error": 0.01,
    "least_cosine": 0.99999,
    "least_token_cosine": 0.9999,
    "least_centered_cosine": 0.99,
}
RECORD = {"tolerance": 0.02, "min_cosine": 0.9999, "engine": "native 1", "golden": GOLDEN}
HALF = {"tolerance": 0.05, "min_cosine": 0.9995, "error_fp16": 0.01, "error_bf16": None}


def manifest_of(**changes: Any) -> Manifest:
    content = {key: value for key, value in OLD.items() if key not in ("reduced_precision", "precisions")}
    return Manifest.from_json(json.dumps(content | changes))


def agreed(cosine: float, error: float = 0.01, tokens: float = 0.99999) -> Agreement:
    return Agreement(
        sequences=3, max_error=error, least_cosine=cosine, least_token_cosine=tokens, least_centered_cosine=0.99
    )


def test_a_bundle_of_before_allows_both_half_precisions_with_its_bounds_and_is_written_as_it_was() -> None:
    manifest = manifest_of(reduced_precision=HALF)
    assert set(manifest.records) == {"bf16", "fp16"}
    for record in manifest.records.values():
        assert (record.tolerance, record.min_cosine, record.refusal) == (0.05, 0.9995, "")
    assert json.loads(manifest.to_json())["reduced_precision"] == HALF
    assert "precisions" not in json.loads(manifest.to_json())
    assert manifest_of(reduced_precision=None).records == {}


def test_records_are_kept() -> None:
    quality = {"data": "esol.csv:y", "sequences": 100, "float32": 0.9, "reduced": 0.89}
    manifest = manifest_of(precisions={"int8": RECORD | {"others": GOLDEN, "quality": quality}, "bf16": RECORD})
    assert Manifest.from_json(manifest.to_json()) == manifest
    assert set(manifest.records) == {"int8", "bf16"}
    assert "reduced_precision" not in json.loads(manifest.to_json())


@pytest.mark.parametrize(
    ("precisions", "message"),
    [
        ({"fp8": RECORD}, "'bf16', 'fp16' or 'int8'"),
        ({"int8": RECORD | {"more": 1}}, "Extra inputs"),
        ({"int8": RECORD | {"min_cosine": 0.89}}, "greater than or equal to 0.9"),
        ({"int8": RECORD | {"min_cosine": 1}}, "less than 1"),
        ({"int8": RECORD | {"min_cosine": "0.99"}}, "valid number"),
        ({"int8": RECORD | {"tolerance": 0}}, "greater than 0"),
        ({"int8": RECORD | {"tolerance": 0.6}}, "less than or equal to 0.5"),
        ({"int8": RECORD | {"golden": GOLDEN | {"least_cosine": 1.5}}}, "less than or equal to 1"),
        ({"int8": RECORD | {"golden": GOLDEN | {"least_centered_cosine": -2}}}, "greater than or equal to -1"),
        ({"int8": RECORD | {"golden": GOLDEN | {"max_error": -1}}}, "greater than or equal to 0"),
        ({"int8": RECORD | {"golden": GOLDEN | {"sequences": 0}}}, "greater than or equal to 1"),
        ({"int8": {key: value for key, value in RECORD.items() if key != "engine"}}, "int8.engine: Field required"),
        ([RECORD], "should be an object"),
    ],
)
def test_what_is_no_record_is_refused(precisions: Any, message: str) -> None:
    with pytest.raises(BundleError, match=message):
        manifest_of(precisions=precisions)


@pytest.mark.parametrize("field", ["max_error", "least_cosine", "least_token_cosine", "least_centered_cosine"])
@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_numbers_must_be_finite(field: str, number: str) -> None:
    golden = GOLDEN | {field: "HERE"}
    content = json.dumps(OLD | {"reduced_precision": None, "precisions": {"int8": RECORD | {"golden": golden}}})
    with pytest.raises(BundleError, match=field):
        Manifest.from_json(content.replace('"HERE"', number))


def test_old_and_new_are_not_mixed() -> None:
    with pytest.raises(BundleError, match="both precisions and reduced_precision"):
        manifest_of(reduced_precision=HALF, precisions={"int8": RECORD})


def test_what_was_measured_decides_whether_a_precision_is_allowed() -> None:
    good = record_of("int8", agreed(0.9995), "native 1", 0.999, others=agreed(0.9992))
    assert good.refusal == ""
    assert good.tolerance == pytest.approx(0.02)
    assert "0.998000 on golden sequences" in record_of("int8", agreed(0.998), "native 1", 0.999).refusal
    assert (
        "0.998000 on other sequences"
        in record_of("int8", agreed(0.9999), "native 1", 0.999, others=agreed(0.998)).refusal
    )
    tokens = agreed(0.9999, tokens=0.998)
    assert "0.998000 on tokens of golden sequences" in record_of("int8", tokens, "native 1", 0.999).refusal
    # The least of very many says little.
    assert record_of("int8", agreed(0.9999), "native 1", 0.999, others=tokens).refusal == ""
    assert record_of("int8", agreed(1.0, 0.4), "native 1", 0.999).tolerance == 0.5
    assert record_of("bf16", agreed(1.0, 0.4), "native 1", 0.999).refusal.startswith("error 0.4 on golden sequences")
    assert "error 5" in record_of("int8", agreed(1.0, 5.0), "native 1", 0.999).refusal


def test_the_card_tells_what_was_measured_once_however_often_it_is_written() -> None:
    quality = Quality(data="esol.csv:y", sequences=1128, float32=0.9, reduced=0.8912)
    records: dict[Any, PrecisionRecord] = {
        "bf16": record_of("int8", agreed(0.99999), "native 1", 0.9999),
        "int8": record_of("int8", agreed(0.9995), "native 1", 0.9999, others=agreed(0.9993), quality=quality),
    }
    section = precision_section(records)
    assert "| int8, native 1 | 3 golden sequences | 0.999500 |" in section
    assert "no: least cosine 0.999500 on golden sequences, 0.9999 demanded" in section
    assert "`esol.csv:y` (1,128 sequences, mean over five folds): 0.9000 in float32, 0.8912 in int8." in section
    card = "# small\n\n## Reduced precision\n\nOld.\n\n## Data\n\nSome.\n"
    written = with_precision_section(card, records)
    assert written == f"# small\n\n## Data\n\nSome.\n\n{section}\n"
    assert with_precision_section(written, records) == written
    assert with_precision_section(written, {}) == "# small\n\n## Data\n\nSome.\n"
    # What an author writes about it in the text of another section stays.
    assert with_precision_section(f"# small\n\nSee {HEADING}.\n", {}) == f"# small\n\nSee {HEADING}.\n"
