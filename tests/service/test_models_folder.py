import importlib
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from birnn_service.errors import StartupError
from birnn_service.models_folder import PACKAGE, choose_models, find_bundles

MODELS = Path(__file__).parents[2] / "models"


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing lies where the test runs."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def without_encoders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, PACKAGE, None)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The encoders as pip would install them, in a folder of the search path."""
    site = tmp_path / "site"
    package = site / PACKAGE
    package.mkdir(parents=True)
    shutil.copy(MODELS / "__init__.py", package)
    shutil.copytree(MODELS / "smiles-small", package / "smiles-small")
    info = site / "birnn_encoders-7.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: birnn-encoders\nVersion: 7.0\n")
    monkeypatch.syspath_prepend(str(site))
    importlib.invalidate_caches()
    sys.modules.pop(PACKAGE, None)
    yield package
    sys.modules.pop(PACKAGE, None)


def test_what_is_asked_for_wins_even_where_it_does_not_exist(installed: Path) -> None:
    Path("models").mkdir()
    assert choose_models(Path("other")) == (Path("other"), "asked for")


def test_a_models_folder_that_is_here_wins_over_the_installed_encoders(installed: Path) -> None:
    Path("models").mkdir()
    models, why = choose_models(None)
    assert models == Path("models")
    assert str(Path("models").resolve()) in why


def test_without_either_the_installed_encoders_are_served(installed: Path) -> None:
    models, why = choose_models(None)
    assert models == installed
    assert "birnn-encoders 7.0" in why
    assert find_bundles(models) == [installed / "smiles-small" / "1"]


@pytest.mark.usefixtures("without_encoders")
def test_without_any_encoders_the_error_says_how_to_get_them() -> None:
    with pytest.raises(StartupError, match=r"--models.*pip install birnn-encoders"):
        choose_models(None)


def test_a_folder_one_level_too_deep_names_the_one_above() -> None:
    with pytest.raises(StartupError, match=rf"versions; give the folder above: --models {MODELS}$"):
        find_bundles(MODELS / "smiles")


def test_a_bundle_itself_names_the_folder_two_levels_above(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(MODELS / "smiles")
    with pytest.raises(StartupError, match=rf"no encoder in 2: it is a bundle; .*--models {MODELS}$"):
        find_bundles(Path("2"))
