from pathlib import Path

import numpy as np
import pytest

from bench.encoders import random_bundle, random_encoder
from bench.engine import (
    BARE,
    STEPS,
    Contest,
    equal_lengths,
    flops_per_token,
    group_by_length,
    load_engines,
    lone_latencies,
    run_contest,
    split,
)
from bench.engine_command import render
from bench.peak import measure_peak
from bench.tokenizer_command import SIZES, measure
from birnn_bundle.bundle import Bundle
from birnn_bundle.ragged import RaggedBatch
from birnn_bundle.smiles import SmilesTokenizer
from birnn_native.library import PRECISIONS
from birnn_service.engine.engine import Output
from tests.e2e.molecules import molecules


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return random_bundle(tmp_path_factory.mktemp("models"), "bigru", 1)


def test_a_benchmark_encoder_is_the_same_every_time(bundle: Bundle) -> None:
    again, _ = random_encoder("bigru", 1)
    other, _ = random_encoder("bigru", 1)
    assert all(
        np.array_equal(one.numpy(), two.numpy())
        for one, two in zip(again.state_dict().values(), other.state_dict().values(), strict=True)
    )
    assert (bundle.manifest.embedding_size, bundle.manifest.hidden_size, bundle.manifest.dimension) == (128, 256, 512)
    assert random_bundle(bundle.path.parents[1], "bigru", 1).manifest == bundle.manifest


def test_work_is_counted_as_multiply_adds_of_all_gates_and_directions(bundle: Bundle) -> None:
    # 48 tokens of a BiGRU with E = 128 and H = 256: 2 directions x 3 gates x 256 x (128 + 256) multiply-adds a token.
    assert flops_per_token(bundle.manifest) * 48 == pytest.approx(56.6e6, rel=1e-3)
    two_layers = bundle.manifest.model_copy(update={"layers": 2})
    assert flops_per_token(two_layers) * 48 == pytest.approx(56.6e6 + 2 * 2 * 3 * 256 * (512 + 256) * 48, rel=1e-3)
    narrow_on_wide = bundle.manifest.model_copy(update={"layers": 2, "hidden_sizes": [256, 10], "hidden_size": 10})
    upper = 2 * 2 * 3 * 10 * (512 + 10)
    assert flops_per_token(narrow_on_wide) == flops_per_token(bundle.manifest) + upper


def test_grouping_sorts_by_length_within_windows_only() -> None:
    order = group_by_length(np.array([9, 3, 7, 2, 8, 1]), window=3)
    assert order.tolist() == [1, 2, 0, 5, 3, 4]


def test_batches_are_whole_and_hold_every_sequence_once(bundle: Bundle) -> None:
    batch = bundle.tokenizer.tokenize([molecule.encode() for molecule in molecules(50)], 1024).batch
    batches = split(batch, np.arange(50), 8)
    assert [len(part) for part in batches] == [8] * 6
    assert sorted(RaggedBatch.concatenate(batches).keys()) == sorted(batch.take(np.arange(48)).keys())


def test_equal_lengths_are_equal() -> None:
    batch = equal_lengths(3, STEPS, 100, 0)
    assert batch.lengths.tolist() == [STEPS] * 3
    assert batch.ids.min() >= 0
    assert batch.ids.max() < 100


def test_everyone_runs_the_same_batches_and_gives_the_same_encodings(bundle: Bundle) -> None:
    engines, missing = load_engines(bundle)
    assert "onnxruntime fp32" in engines
    assert engines.keys() | missing.keys() == {"onnxruntime fp32", *(f"native {precision}" for precision in PRECISIONS)}
    batch = bundle.tokenizer.tokenize([molecule.encode() for molecule in molecules(40)], 1024).batch
    contest = Contest.prepare(bundle, batch, engines)
    expected = engines["onnxruntime fp32"].run(batch.take(np.arange(8)), Output.POOLED)
    torch_run = contest._torch_run([batch.take(np.arange(8))])(0)
    np.testing.assert_allclose(np.asarray(torch_run), expected, atol=1e-5)
    rates = run_contest(contest, 4, rounds=2, seconds=0.01)
    names = [rate["contestant"] for rate in rates]
    assert BARE in names
    assert len(names) == len(set(names)) == 2 * len(engines) + 2
    assert all(rate["gflops"] > 0 and rate["batch"] == 4 for rate in rates)
    assert lone_latencies(contest, repeats=2).keys() == {*engines, "session.run", "PyTorch"}


def test_the_tables_compare_with_the_bare_loop_and_the_peak() -> None:
    def rate(name: str, gflops: float) -> dict[str, object]:
        return {"contestant": name, "batch": 8, "sequences_per_second": 1500.0, "gflops": gflops}

    text = render(
        {
            "peak": {"rates": {"float32": 100.0, "bf16": 200.0}, "method": "by hand"},
            "rounds": 3,
            "file": "some.smi",
            "encoders": [
                {
                    "encoder": "bigru-1",
                    "rates": [
                        rate("ours", 75.0),
                        rate("theirs", 90.0),
                        rate("ours bf16, equal", 120.0),
                        rate("ours int8, equal", 80.0),
                        rate(BARE, 50.0),
                    ],
                    "lone_seconds": {"ours": 0.001},
                    "lone_seconds_two_cores": {"ours": 0.0006},
                    "versions": {"oneDNN bf16": "3.2.0"},
                    "accuracy": [
                        {"contestant": "ours", "padding": 0.0, "error": 3e-7, "cosine": 1.0, "right": True},
                        {"contestant": "theirs", "padding": 0.5, "error": 0.2, "cosine": 0.9, "right": False},
                    ],
                    "missing": {"native bf16": "no such instructions"},
                }
            ],
        }
    )
    assert "| ours | 1,500 |" in text
    assert "Peak: float32 100 GFLOP/s, bf16 200 GFLOP/s (by hand)" in text
    assert "| ours | 75, 75% |" in text
    assert "| ours bf16, equal | 120, 60% |" in text
    assert "| ours int8, equal | 80 |" in text
    assert "| ours | 1.50x |" in text
    assert "| theirs (wrong vectors) | 1.80x |" in text
    assert "| ours, two cores | 0.600 |" in text
    assert "| ours | 0% | 3.0e-07 | 1.000000 |  |" in text
    assert "| theirs | 50% | 2.0e-01 | 0.900000 | **wrong** |" in text
    assert "oneDNN bf16: 3.2.0" in text
    assert "native bf16 is not here: no such instructions" in text


def test_a_peak_is_measured_and_says_how() -> None:
    peak = measure_peak(0)
    assert peak.rates["float32"] > 0
    # Twice as many products of bf16 fit into a register as of float32, and twice as many of int8 again.
    rates = [peak.rates[precision] for precision in ("float32", "bf16", "int8") if precision in peak.rates]
    assert rates == sorted(rates)
    assert "multiply-adds" in peak.method or "sgemm" in peak.method


def test_the_tokenizer_is_measured_at_every_size_even_from_a_small_file() -> None:
    tokenizer = SmilesTokenizer.train(molecules(20), minimum_count=1)
    rates = measure(tokenizer, [molecule.encode() for molecule in molecules(20)], rounds=1, seconds=0.01)
    assert list(rates) == SIZES
    assert all(rate > 0 for rate in rates.values())


def test_an_encoder_folder_is_taken_as_it_is(bundle: Bundle, tmp_path: Path) -> None:
    before = (bundle.path / "manifest.json").stat().st_mtime_ns
    random_bundle(bundle.path.parents[1], "bigru", 1)
    assert (bundle.path / "manifest.json").stat().st_mtime_ns == before
