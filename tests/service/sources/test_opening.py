import importlib
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from birnn_service.errors import StartupError
from birnn_service.sources.opening import PACKAGE, default_folder, open_source
from birnn_service.sources.options import StoreOptions

MODELS = Path(__file__).parents[3] / "models"


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
    assert open_source("other", StoreOptions()).name == "other"


def test_a_models_folder_that_is_here_wins_over_the_installed_encoders(installed: Path) -> None:
    Path("models").mkdir()
    assert open_source(None, StoreOptions()).name == "models"
    assert str(Path("models").resolve()) in default_folder()[1]


def test_without_either_the_installed_encoders_are_served(installed: Path) -> None:
    models, why = default_folder()
    assert models == installed
    assert "birnn-encoders 7.0" in why
    source = open_source(None, StoreOptions())
    assert list(source.look().bundles) == [("smiles-small", "1")]
    assert source.fetch(("smiles-small", "1")) == installed / "smiles-small" / "1"


@pytest.mark.usefixtures("without_encoders")
def test_without_any_encoders_the_error_says_how_to_get_them() -> None:
    with pytest.raises(StartupError, match=r"--models.*pip install birnn-encoders"):
        open_source(None, StoreOptions())
