"""What each integration says where its library is not installed. tests/clients calls a server through all of them."""

import subprocess
import sys
import tomllib

import pytest

from tests.packaging.environments import ROOT

EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]


@pytest.mark.parametrize(
    ("module", "package", "library", "extra"),
    [
        ("langchain", "langchain_core", "langchain-core", "langchain"),
        ("llama_index", "llama_index", "llama-index-core", "llama-index"),
        ("sklearn", "sklearn", "scikit-learn", "sklearn"),
    ],
)
def test_a_missing_library_names_the_extra_that_brings_it(module: str, package: str, library: str, extra: str) -> None:
    code = f"import sys; sys.modules[{package!r}] = None; import birnn.integrations.{module}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    expected = f"birnn.integrations.{module} needs {library}: pip install 'birnn-serving[{extra}]'"
    assert last == f"ImportError: {expected}"
    assert [requirement.partition(">=")[0] for requirement in EXTRAS[extra]] == [library]


def test_the_client_alone_needs_none_of_them() -> None:
    code = "import sys, birnn, birnn.integrations; sys.exit('sklearn' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
