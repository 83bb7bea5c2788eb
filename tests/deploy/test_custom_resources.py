"""What the schemas of cert-manager, the Gateway API, KEDA, Prometheus' operator and KServe say about their resources.

None of the schemas lies here. They come from npm and PyPI when the tests run, and are kept below build/clients.
"""

import json
import shutil
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from tests.clients.environments import node_packages, python_packages
from tests.deploy.rendering import KUBERNETES, needs_renderer, render, with_components
from tests.deploy.test_components import CUSTOM, TOGETHER
from tests.packaging.environments import run

pytestmark = needs_renderer

SCHEMAS = Path(__file__).parent / "schemas"
# The release of each: cert-manager 1.5, Gateway API 1.0, KEDA 2.10 and Prometheus operator.
PACKAGES = (
    "@kubernetes-models/cert-manager@4.4.4",
    "@kubernetes-models/gateway-api@0.5.1",
    "@kubernetes-models/keda@0.4.2",
    "@kubernetes-models/prometheus-operator@6.0.0",
)


def asked(command: list[str | Path], manifests: list[dict[str, Any]], folder: Path) -> Any:
    """What a program prints about manifests."""
    (folder / "manifests.json").write_text(json.dumps(manifests), encoding="utf-8")
    return json.loads(run(*command, folder / "manifests.json").stdout)


def test_custom_resources_follow_the_schemas_of_their_owners(tmp_path: Path) -> None:
    place = node_packages("schemas", *PACKAGES).parent
    checker = Path(shutil.copy(SCHEMAS / "check.mjs", place))
    for name in ("together", "pods"):
        (tmp_path / name).mkdir()
    rendered = with_components(tmp_path / "together", *TOGETHER) | with_components(
        tmp_path / "pods", "pod-monitor", "tls"
    )
    found = [deepcopy(one) for one in rendered.values() if CUSTOM.match(one["apiVersion"])]
    kinds = {one["kind"] for one in found}
    assert kinds == {
        "Certificate",
        "GRPCRoute",
        "HTTPRoute",
        "PodMonitor",
        "PrometheusRule",
        "ScaledObject",
        "ServiceMonitor",
    }
    for one in found:
        # Its schema became v1 in 1.1 as it was; the package has 1.0.
        if one["kind"] == "GRPCRoute":
            one["apiVersion"] = "gateway.networking.k8s.io/v1alpha2"
    misspelled, incomplete = deepcopy(found), deepcopy(found)
    for one in misspelled:
        one["spec"]["notAField"] = True
    for one in incomplete:
        one["spec"] = 1
    told = asked(["node", checker], [*found, *misspelled, *incomplete], tmp_path)
    first, second = len(found), 2 * len(found)
    assert [(one["kind"], faults) for one, faults in zip(found, told[:first], strict=True) if faults] == []
    assert told[first:second] == [["/spec/notAField is not known"]] * len(found)
    assert all(told[second:])


def lost(given: object, understood: object, path: str = "") -> list[str]:
    """Where something that was given is not there, or is something else."""
    if isinstance(given, dict) and isinstance(understood, dict):
        return [where for key, value in given.items() for where in lost(value, understood.get(key), f"{path}/{key}")]
    if isinstance(given, list) and isinstance(understood, list) and len(given) == len(understood):
        pairs = enumerate(zip(given, understood, strict=True))
        return [where for at, (one, other) in pairs for where in lost(one, other, f"{path}/{at}")]
    return [] if given == understood else [path]


@pytest.mark.slow
def test_kserve_understands_its_resources(tmp_path: Path) -> None:
    environment = python_packages("kserve-models", "kserve==0.21.0", constrained=False)
    manifests = list(render(KUBERNETES / "kserve").values())
    (misspelled := deepcopy(manifests[0]))["spec"]["notAField"] = True
    *understood, other = asked([environment.python, SCHEMAS / "understand.py"], [*manifests, misspelled], tmp_path)
    assert lost(manifests, understood) == []
    assert lost(misspelled, other) == ["/spec/notAField"]
