"""Virtual environments of other servers and libraries, made from pinned requirements below an ignored folder."""

import hashlib
import subprocess
import sys
from pathlib import Path

import click

from bench.machine import ROOT, SOURCES

REQUIREMENTS = Path(__file__).parent / "requirements"
FOLDER = ROOT / "build" / "peers"


def environment(name: str, folder: Path = FOLDER) -> Path:
    """The environment of requirements/NAME.txt, made or made anew where the file has changed; its folder.

    Raises:
        click.ClickException: pip failed.
    """
    requirements = REQUIREMENTS / f"{name}.txt"
    place = folder / name
    stamp = place / "requirements.sha256"
    digest = hashlib.sha256(requirements.read_bytes()).hexdigest()
    if not stamp.is_file() or stamp.read_text() != digest:
        click.echo(f"making the environment {place} from {requirements.name} ...", err=True)
        _run([sys.executable, "-m", "venv", "--clear", str(place)])
        _run([str(place / "bin" / "python"), "-m", "pip", "install", "--quiet", "-r", str(requirements)])
        stamp.write_text(digest)
    # What runs there imports `birnn_bundle` and `bench` from the source tree.
    (site_packages(place) / "birnn-serving-source.pth").write_text("".join(f"{root}\n" for root in SOURCES))
    return place


def site_packages(place: Path) -> Path:
    """Where an environment keeps its packages."""
    return place / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"


def installed(place: Path) -> list[str]:
    """`name==version` of what is installed in an environment."""
    listing = _run([str(place / "bin" / "python"), "-m", "pip", "list", "--format", "freeze"])
    return sorted(line for line in listing.splitlines() if "==" in line)


def _run(command: list[str]) -> str:
    done = subprocess.run([*command], capture_output=True, text=True, env=None)
    if done.returncode:
        raise click.ClickException(f"{' '.join(command)} failed:\n{done.stderr.strip()}")
    return done.stdout
