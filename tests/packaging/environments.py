"""Virtual environments that distributions are installed into, as users install them."""

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
# What the tests' own environment tells Python and birnn is not for others.
PRIVATE = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "BIRNN_MODELS", "BIRNN_CONFIG", "BIRNN_KERNELS")


def run(
    *command: str | Path, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end; it must succeed."""
    done = subprocess.run(list(map(str, command)), cwd=cwd, env=clean_environ(env), capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}\n{done.stderr}"
    return done


def clean_environ(env: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's variables without those that would lead another environment back here."""
    return {**{name: value for name, value in os.environ.items() if name not in PRIVATE}, **(env or {})}


@dataclass(frozen=True)
class Environment:
    """A virtual environment.

    Attributes:
        place: Its folder.
    """

    place: Path

    @classmethod
    def create(cls, place: Path, *, borrow: bool = False) -> "Environment":
        """Make one; with `borrow` it also sees the third-party packages of the environment that runs the tests."""
        run(sys.executable, "-m", "venv", "--without-pip", place)
        environment = cls(place)
        if borrow:
            # A path file is read in site folders only: editable installs beyond these paths stay unseen.
            folders = [folder for folder in sys.path if folder.endswith("site-packages")]
            (environment.site_packages / "borrowed.pth").write_text("".join(f"{folder}\n" for folder in folders))
        return environment

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.program("python")

    @property
    def site_packages(self) -> Path:
        """Where its packages lie."""
        (folder,) = self.place.glob("lib/python*/site-packages")
        return folder

    def program(self, name: str) -> Path:
        """A command that it has installed."""
        return self.place / "bin" / name

    def pip(self, *arguments: str | Path, env: Mapping[str, str] | None = None) -> str:
        """Run pip on it, which must succeed; returns what it printed."""
        pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", self.python)
        return run(*pip, *arguments, env=env).stdout
