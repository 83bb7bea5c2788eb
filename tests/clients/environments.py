"""Where other people's clients are installed: below build/clients, kept for later runs, each made anew when it changes.

What cannot be installed skips the test, with the reason in its row of the table.
"""

import hashlib
import json
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.e2e.server_process import PATIENCE_SECONDS
from tests.packaging.environments import ROOT, Environment, clean_environ, run

FOLDER = ROOT / "build" / "clients"
CONSTRAINTS = ROOT / "constraints.txt"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# What a client imports of this repository.
SOURCES = (ROOT / "client", ROOT / "bundle")


def python_packages(name: str, *requirements: str, extra: str | None = None, constrained: bool = True) -> Environment:
    """A virtual environment with packages from a package index.

    Args:
        name: Name of its folder; one for each set of requirements.
        requirements: What pip is to install, with versions.
        extra: Also `birnn` from this tree, and what `birnn-serving[EXTRA]` requires; "" for the client without extras.
        constrained: Whether constraints.txt holds; it spares pip the search for versions, unless they contradict it.
    """
    if extra is not None:
        requirements += tuple(PROJECT["dependencies"]) + tuple(PROJECT["optional-dependencies"][extra] if extra else ())
    options = ("-c", CONSTRAINTS) if constrained else ()

    def make(place: Path) -> None:
        environment = Environment.create(place)
        # A file, for only there a requirement may have a hash.
        listed = place / "requirements.txt"
        listed.write_text("".join(f"{requirement}\n" for requirement in requirements))
        environment.pip("install", "--quiet", *options, "-r", listed)
        if extra is not None:
            (environment.site_packages / "birnn.pth").write_text("".join(f"{folder}\n" for folder in SOURCES))

    contents = [*requirements, sys.version, CONSTRAINTS.read_text(encoding="utf-8") if constrained else ""]
    return Environment(_kept(name, contents, make))


def node_packages(name: str, *packages: str) -> Path:
    """A folder `node_modules` with packages from the npm registry, for NODE_PATH.

    Args:
        name: Name of the folder it lies in; one for each set of packages.
        packages: What npm is to install, with versions.
    """
    needs_program("node", "nodejs")
    needs_program("npm", "npm")

    def make(place: Path) -> None:
        place.mkdir(parents=True)
        options = ("--no-audit", "--no-fund", "--ignore-scripts", "--no-update-notifier", "--fetch-retries=1")
        run("npm", "install", "--prefix", place, *options, *packages)

    return _kept(name, packages, make) / "node_modules"


def needs_program(program: str, *packages: str) -> None:
    """Skip the test where a program, or a file by its path, is missing; say which packages of Debian bring it."""
    if shutil.which(program) is None and not Path(program).exists():
        pytest.skip(f"no {program} (apt-get install {' '.join(packages)})")


def output(*command: str | Path, cwd: Path | None = None, **env: str) -> str:
    """What a client prints; it must succeed."""
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env=clean_environ(env),
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
    )
    told = (done.stderr.strip() or done.stdout.strip() or "nothing was printed").splitlines()
    # The last line first: the table shows it.
    assert done.returncode == 0, "\n".join([told[-1], *told])
    return done.stdout


def version(environment: Environment, distribution: str) -> str:
    """The version of what is installed in a virtual environment."""
    code = f"from importlib.metadata import version; print(version({distribution!r}))"
    return output(environment.python, "-c", code).strip()


def _kept(name: str, contents: Sequence[str], make: Callable[[Path], None]) -> Path:
    """A folder made by `make`, unless an earlier run has made it from the same contents."""
    place = FOLDER / name
    stamp = place / "contents.sha256"
    digest = hashlib.sha256(json.dumps(contents).encode()).hexdigest()
    if not stamp.is_file() or stamp.read_text() != digest:
        shutil.rmtree(place, ignore_errors=True)
        try:
            make(place)
        except AssertionError as error:
            pytest.skip(f"{name} cannot be installed: {str(error).strip().splitlines()[-1]}")
        stamp.write_text(digest)
    return place
