"""What the kustomizations of deploy/kubernetes render to."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

KUBERNETES = Path(__file__).parents[2] / "deploy" / "kubernetes"
COMPONENTS = sorted(folder.name for folder in (KUBERNETES / "components").iterdir())
# The oldest release with `preStop: sleep`, and the newest with known schemas.
RELEASES = ("1.30", kubernetes_validate.latest_version())
RENDERER = next(
    (command for command in (("kustomize", "build"), ("kubectl", "kustomize")) if shutil.which(command[0])), None
)
needs_renderer = pytest.mark.skipif(RENDERER is None, reason="neither kustomize nor kubectl is installed")

Manifests = dict[str, dict[str, Any]]


def render(folder: Path) -> Manifests:
    """What a kustomization renders to, by kind/name."""
    assert RENDERER is not None
    done = subprocess.run([*RENDERER, str(folder)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return {
        f"{manifest['kind']}/{manifest['metadata']['name']}": manifest for manifest in yaml.safe_load_all(done.stdout)
    }


def with_components(folder: Path, *components: str, base: str = "base", **more: Any) -> Manifests:
    """What an overlay with some components renders to.

    Args:
        folder: Where to write it.
        components: Their names, in order.
        base: What it lies over.
        more: Further fields of the kustomization.
    """
    place = os.path.relpath(KUBERNETES, folder.resolve())
    overlay = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": "encoders",
        "resources": [f"{place}/{base}"],
        "components": [f"{place}/components/{component}" for component in components],
        **more,
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(overlay), encoding="utf-8")
    return render(folder)


def pod(manifests: Manifests) -> dict[str, Any]:
    """The pods of the Deployment."""
    spec: dict[str, Any] = manifests["Deployment/birnn"]["spec"]["template"]["spec"]
    return spec


def container(manifests: Manifests) -> dict[str, Any]:
    """The one container of these pods."""
    (only,) = pod(manifests)["containers"]
    found: dict[str, Any] = only
    return found


def settings_of(manifests: Manifests) -> dict[str, str]:
    """Variables that the server gets from the ConfigMap."""
    (given,) = (manifest["data"] for name, manifest in manifests.items() if name.startswith("ConfigMap/birnn-settings"))
    return dict(given)
