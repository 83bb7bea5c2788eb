"""The transformer beside scikit-learn itself and a real server; tables of pandas are in tests/clients."""

import pickle
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import Ridge
from sklearn.pipeline import Pipeline, make_pipeline

import birnn
from birnn.integrations.sklearn import BirnnTransformer
from tests.e2e.server_process import MODELS, SMILES, running

MOLECULES = ["CCO", "c1ccccc1", "CC(=O)O"]
LONG = "C" * (SMILES.max_length + 50)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with running() as server:
        yield server.address


@pytest.fixture(scope="module")
def client(address: str) -> Iterator[birnn.Client]:
    with birnn.Client(address) as client:
        yield client


def test_vectors_are_those_of_the_client(address: str, client: birnn.Client) -> None:
    transformer = BirnnTransformer(address)
    vectors = transformer.fit_transform(MOLECULES)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, client.encode(MOLECULES), atol=1e-5)
    assert (transformer.encoder_, transformer.version_) == ("smiles", "2")
    names = transformer.get_feature_names_out()
    assert len(names) == vectors.shape[1]
    assert names[:2].tolist() == ["smiles_0", "smiles_1"]


@pytest.mark.parametrize(
    "column", [tuple(MOLECULES), np.array(MOLECULES), [[molecule] for molecule in MOLECULES]], ids=["tuple", "1d", "2d"]
)
def test_a_column_may_come_in_many_shapes(column: object, address: str, client: birnn.Client) -> None:
    vectors = BirnnTransformer(address, "smiles-small").fit_transform(column)
    np.testing.assert_allclose(vectors, client.encode(MOLECULES, "smiles-small"), atol=1e-5)


@pytest.mark.parametrize("strings", ["CCO", [["CCO", "C"], ["C", "O"]]])
def test_what_is_no_column_is_refused(strings: object, address: str) -> None:
    with pytest.raises(ValueError, match="must be one column of strings, not of shape"):
        BirnnTransformer(address).fit(strings)


def test_it_is_a_step_of_pipelines(address: str) -> None:
    pipeline = make_pipeline(BirnnTransformer(address, "smiles-small"), Ridge())
    lengths = [len(molecule) for molecule in MOLECULES]
    assert pipeline.fit(MOLECULES, lengths).predict(MOLECULES).shape == (3,)
    columns = ColumnTransformer([("molecule", BirnnTransformer(address, "smiles-small"), 0)])
    table = np.array([[molecule, 1] for molecule in MOLECULES], dtype=object)
    assert columns.fit_transform(table).shape == (3, 512)
    assert columns.get_feature_names_out()[0] == "molecule__smiles-small_0"


def test_it_is_cloned_and_pickled_before_and_after_it_is_fitted(address: str) -> None:
    transformer = BirnnTransformer(address, "smiles-small", connect=partial(birnn.Client, batch_size=2))
    copy = clone(transformer)
    # A copy of a `partial` is like it, but not equal to it.
    assert repr(copy.get_params()) == repr(transformer.get_params())
    with pytest.raises(NotFittedError):
        copy.transform(MOLECULES)
    fitted = pickle.loads(pickle.dumps(copy)).fit(MOLECULES)
    assert np.array_equal(pickle.loads(pickle.dumps(fitted)).transform(MOLECULES), fitted.transform(MOLECULES))
    assert not hasattr(clone(fitted), "version_")


def test_items_that_cannot_be_encoded_raise_or_cost_their_row(address: str) -> None:
    strings = ["CCO", "what is this?"]
    with pytest.raises(birnn.SequenceError, match="1 of 2 sequences") as caught:
        BirnnTransformer(address).fit_transform(strings)
    assert [error.index for error in caught.value.errors] == [1]
    vectors = BirnnTransformer(address, on_error="nan").fit_transform(strings)
    assert np.isnan(vectors).any(axis=1).tolist() == [False, True]


def test_truncation_and_timeout_are_honored(address: str, client: birnn.Client) -> None:
    with pytest.raises(birnn.SequenceError, match="ask for truncation"):
        BirnnTransformer(address).fit_transform([LONG])
    vectors = BirnnTransformer(address, truncate=True).fit_transform([LONG])
    np.testing.assert_allclose(vectors, client.encode([LONG[: SMILES.max_length]]), atol=1e-5)
    with pytest.raises(birnn.DeadlineError):
        BirnnTransformer(address, timeout=1e-6).fit(MOLECULES).transform(MOLECULES)


def test_the_client_may_have_options_of_its_own(address: str) -> None:
    with pytest.raises(ValueError, match="batch_size"):
        BirnnTransformer(address, connect=partial(birnn.Client, batch_size=0)).fit(MOLECULES)


def test_an_encoder_that_is_not_served_is_told_when_fitting(address: str) -> None:
    with pytest.raises(birnn.UnknownEncoderError, match="stranger"):
        BirnnTransformer(address, "stranger").fit(MOLECULES)
    with pytest.raises(birnn.UnknownEncoderError, match="version 7"):
        BirnnTransformer(address, version="7").fit(MOLECULES)


def test_what_was_fitted_keeps_its_version_when_a_newer_one_is_served(address: str, tmp_path: Path) -> None:
    shutil.copytree(MODELS / "smiles" / "1", tmp_path / "smiles" / "1")
    with running(tmp_path) as older:
        fitted = Pipeline([("encode", BirnnTransformer(older.address))]).fit(MOLECULES)
        before = fitted.transform(MOLECULES)
    fitted.set_params(encode__address=address)
    np.testing.assert_allclose(fitted.transform(MOLECULES), before, atol=1e-5)
    assert BirnnTransformer(address).fit_transform(MOLECULES).shape != before.shape


def test_vectors_are_of_length_1_where_that_is_asked_for(address: str) -> None:
    transformer = BirnnTransformer(address, "smiles-small", normalize=True)
    lengths = np.linalg.norm(transformer.fit_transform(["CCO", "c1ccccc1"]), axis=1)
    assert lengths == pytest.approx([1, 1], abs=1e-5)
