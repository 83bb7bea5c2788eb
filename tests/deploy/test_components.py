"""The components of deploy/kubernetes, each over the base, and what they say about the server."""

import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from birnn.openinference import inference_pb2
from birnn.v1 import encoder_pb2
from birnn_service.setting_types import ENV_PREFIX
from birnn_service.settings import Settings
from tests.deploy.queries import DASHBOARD, selectors
from tests.deploy.rendering import (
    COMPONENTS,
    KUBERNETES,
    RELEASES,
    Manifests,
    container,
    needs_renderer,
    pod,
    render,
    settings_of,
    with_components,
)
from tests.deploy.test_labels import LABELS

pytestmark = needs_renderer

# Kinds that are not Kubernetes' own; tests/deploy/test_custom_resources.py looks at these.
CUSTOM = re.compile(r"(cert-manager\.io|gateway\.networking\.k8s\.io|keda\.sh|monitoring\.coreos\.com)/")
README = KUBERNETES.parent / "README.md"
TOGETHER = ("network-policy", "object-store", "service-monitor", "dashboard", "keda", "gateway", "cert-manager")
UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30}
# How old an answer of the cluster's DNS may be: the TTL that CoreDNS gives to what it knows from Kubernetes.
DNS_SECONDS = 5


def amount(quantity: str) -> int:
    return int(quantity[:-2]) * UNITS[quantity[-2:]]


def check_pods(manifests: Manifests) -> None:
    """What must hold for the Deployment, whatever lies over the base."""
    limit = amount(container(manifests)["resources"]["limits"]["ephemeral-storage"])
    volumes = [amount(volume["emptyDir"]["sizeLimit"]) for volume in pod(manifests)["volumes"] if "emptyDir" in volume]
    # Kubernetes evicts a pod that takes more, and its log counts.
    assert sum(volumes) + amount("128Mi") <= limit
    probe = container(manifests)["startupProbe"]
    rollout = manifests["Deployment/birnn"]["spec"]
    assert rollout["progressDeadlineSeconds"] >= (
        probe["periodSeconds"] * probe["failureThreshold"] + rollout["minReadySeconds"]
    )
    assert settings_of(manifests).keys() <= {ENV_PREFIX + field.upper() for field in Settings.model_fields}
    places = [mount["mountPath"] for mount in container(manifests)["volumeMounts"]]
    assert len(places) == len(set(places))
    spread = pod(manifests)["topologySpreadConstraints"]
    assert {one["topologyKey"] for one in spread} == {"topology.kubernetes.io/zone", "kubernetes.io/hostname"}


@pytest.mark.parametrize(
    ("variant", "components"),
    [*(("base", (one,)) for one in COMPONENTS), ("base", TOGETHER), ("overlays/gpu", TOGETHER)],
)
def test_a_component_renders_to_what_kubernetes_takes(
    variant: str, components: tuple[str, ...], tmp_path: Path
) -> None:
    manifests = with_components(tmp_path, *components, base=variant)
    for manifest in manifests.values():
        assert manifest["metadata"]["namespace"] == "encoders"
        if not CUSTOM.match(manifest["apiVersion"]):
            kubernetes_validate.validate(manifest, RELEASES[-1], strict=True)
    check_pods(manifests)


def test_the_readme_names_every_component_in_an_order_that_works_and_its_patches_fit(tmp_path: Path) -> None:
    told = README.read_text(encoding="utf-8").partition("### Components")[2].partition("### KServe")[0]
    rows = [re.findall(r"`([a-z-]+)`", line.split("|")[1]) for line in told.splitlines() if line.startswith("| `")]
    named = [name for row in rows for name in row]
    assert sorted([*named, "prometheus-rule"]) == COMPONENTS
    # One of each row, but encoders come from one place only, and cert-manager brings tls.
    chosen = [row[-1] for row in rows if row[0] not in ("models-volume", "models-copy")]
    patches = yaml.safe_load(re.findall(r"```yaml\n(.*?)```", told, re.S)[1])
    manifests = with_components(tmp_path, *chosen, **patches)
    assert manifests["Certificate/birnn"]["spec"]["issuerRef"]["name"] == "my-issuer"
    assert "birnn.encoders.svc" in manifests["Certificate/birnn"]["spec"]["dnsNames"]
    assert manifests["GRPCRoute/birnn"]["spec"]["parentRefs"] == manifests["HTTPRoute/birnn"]["spec"]["parentRefs"]
    assert manifests["GRPCRoute/birnn"]["spec"]["hostnames"] == ["encoders.example.com"]
    assert "NAMESPACE" not in yaml.safe_dump_all(manifests.values())
    assert {"name": "models", "image": {"reference": "registry.example/models:3", "pullPolicy": "IfNotPresent"}} in pod(
        manifests
    )["volumes"]
    assert settings_of(manifests)["BIRNN_MODELS"] == "s3://my-bucket/models"
    assert manifests["PodMonitor/birnn"]["spec"]["podMetricsEndpoints"][0]["scheme"] == "https"
    assert ports(manifests["NetworkPolicy/birnn"]["spec"]["egress"]) == {53, 443}


@pytest.mark.parametrize("variant", ["base", "overlays/gpu"])
def test_a_rollout_waits_for_clients_and_storage_is_bounded(variant: str) -> None:
    manifests = render(KUBERNETES / variant)
    check_pods(manifests)
    assert manifests["Deployment/birnn"]["spec"]["minReadySeconds"] > DNS_SECONDS


def test_clients_find_new_pods_within_a_minute() -> None:
    age = float(settings_of(render(KUBERNETES / "base"))["BIRNN_MAX_CONNECTION_SECONDS"])
    # A connection lives a tenth longer at most.
    assert age + age / 10 + DNS_SECONDS <= 60


def test_keda_scales_on_what_waits_and_alone(tmp_path: Path) -> None:
    manifests = with_components(tmp_path, "keda")
    assert not [name for name in manifests if name.startswith("HorizontalPodAutoscaler/")]
    scaled = manifests["ScaledObject/birnn"]["spec"]
    assert f"Deployment/{scaled['scaleTargetRef']['name']}" in manifests
    before = render(KUBERNETES / "base")["HorizontalPodAutoscaler/birnn"]["spec"]
    assert (scaled["minReplicaCount"], scaled["maxReplicaCount"]) == (before["minReplicas"], before["maxReplicas"])
    assert scaled["advanced"]["horizontalPodAutoscalerConfig"]["behavior"] == before["behavior"]
    waiting, cpu = scaled["triggers"]
    (selector,) = selectors(waiting["metadata"]["query"])
    assert selector.name in LABELS
    # Until an overlay says which, there are no series, and that is an error.
    assert [(one.name, one.value) for one in selector.matchers.matchers] == [("namespace", "NAMESPACE")]
    assert waiting["metadata"]["ignoreNullValues"] == "false"
    assert 0 < float(waiting["metadata"]["threshold"]) < Settings.model_fields["max_backlog_seconds"].default
    assert waiting["metricType"] == "AverageValue"
    assert int(cpu["metadata"]["value"]) == before["metrics"][0]["resource"]["target"]["averageUtilization"]


def test_the_certificate_names_what_callers_and_prometheus_ask_for(tmp_path: Path) -> None:
    manifests = with_components(tmp_path, "service-monitor", "cert-manager")
    certificate = manifests["Certificate/birnn"]["spec"]
    assert set(certificate["dnsNames"]) == {name.removeprefix("Service/") for name in manifests if "Service/" in name}
    (endpoint,) = manifests["ServiceMonitor/birnn"]["spec"]["endpoints"]
    assert endpoint["tlsConfig"]["serverName"] in certificate["dnsNames"]
    (mounted,) = (volume["secret"] for volume in pod(manifests)["volumes"] if "secret" in volume)
    assert mounted["secretName"] == certificate["secretName"]
    assert settings_of(manifests)["BIRNN_INSECURE"] == "false"


def test_prometheus_finds_the_pods_themselves_too(tmp_path: Path) -> None:
    manifests = with_components(tmp_path, "pod-monitor", "tls")
    monitor = manifests["PodMonitor/birnn"]["spec"]
    labels = manifests["Deployment/birnn"]["spec"]["template"]["metadata"]["labels"]
    assert monitor["selector"]["matchLabels"].items() <= labels.items()
    assert labels[monitor["jobLabel"]] == "birnn"
    (endpoint,) = monitor["podMetricsEndpoints"]
    assert endpoint["port"] in {port["name"] for port in container(manifests)["ports"]}
    assert (endpoint["scheme"], endpoint["tlsConfig"]["serverName"]) == ("https", "birnn-metrics")
    assert "PrometheusRule/birnn" in manifests
    assert "ServiceMonitor/birnn" not in manifests


def test_the_dashboard_comes_whole_and_can_be_applied(tmp_path: Path) -> None:
    shown = with_components(tmp_path, "dashboard")["ConfigMap/birnn-dashboard"]
    assert shown["data"]["birnn.json"] == DASHBOARD.read_text(encoding="utf-8")
    # `kubectl apply` keeps what it applied in an annotation, which holds so much.
    assert len(shown["data"]["birnn.json"].encode()) < 250_000


def ports(rules: list[dict[str, Any]]) -> set[object]:
    return {port["port"] for rule in rules for port in rule["ports"]}


def test_only_what_a_policy_allows_reaches_pods_or_is_reached(tmp_path: Path) -> None:
    manifests = with_components(tmp_path, "network-policy")
    policy = manifests["NetworkPolicy/birnn"]["spec"]
    labels = manifests["Deployment/birnn"]["spec"]["template"]["metadata"]["labels"]
    assert policy["podSelector"]["matchLabels"].items() <= labels.items()
    assert ports(policy["ingress"]) == {port["name"] for port in container(manifests)["ports"]}
    assert all(rule["from"] for rule in policy["ingress"])
    assert set(policy["policyTypes"]) == {"Ingress", "Egress"}
    assert policy["egress"] == []
    (other := tmp_path / "store").mkdir()
    reached = with_components(other, "network-policy", "object-store")["NetworkPolicy/birnn"]["spec"]
    assert reached["ingress"] == policy["ingress"]
    assert ports(reached["egress"]) == {53, 443}


def test_routes_lead_to_what_the_server_offers(tmp_path: Path) -> None:
    manifests = with_components(tmp_path, "gateway")
    offered = {
        service.full_name
        for file in (encoder_pb2.DESCRIPTOR, inference_pb2.DESCRIPTOR)
        for service in file.services_by_name.values()
    }
    for kind in ("GRPCRoute", "HTTPRoute"):
        (rule,) = manifests[f"{kind}/birnn"]["spec"]["rules"]
        (backend,) = rule["backendRefs"]
        service = manifests[f"Service/{backend['name']}"]["spec"]
        assert service.get("clusterIP") != "None"
        assert backend["port"] in {port["port"] for port in service["ports"]}
    (rule,) = manifests["GRPCRoute/birnn"]["spec"]["rules"]
    assert {match["method"]["service"] for match in rule["matches"]} == offered


@pytest.mark.parametrize("component", ["models-volume", "models-image", "models-copy"])
def test_encoders_lie_where_the_image_looks_for_them(component: str, tmp_path: Path) -> None:
    manifests = with_components(
        tmp_path, component, images=[{"name": "birnn-models", "newName": "registry.example/models", "newTag": "3"}]
    )
    assert "BIRNN_MODELS" not in settings_of(manifests)
    (mount,) = (one for one in container(manifests)["volumeMounts"] if one["name"] == "models")
    assert mount == {"name": "models", "mountPath": "/models", "readOnly": True}
    assert any(volume["name"] == "models" for volume in pod(manifests)["volumes"])
    # Files of an image do not change; those of a volume do, and one that is broken must not stop all pods.
    follows = component == "models-volume"
    assert (float(settings_of(manifests)["BIRNN_MODELS_POLL"]) > 0) is follows
    assert (settings_of(manifests)["BIRNN_READINESS"] == "serving") is follows
    if component == "models-copy":
        (copier,) = pod(manifests)["initContainers"]
        assert copier["image"] == "registry.example/models:3"
        assert copier["securityContext"] == container(manifests)["securityContext"]


def test_kserve_runs_the_same_server() -> None:
    manifests, base = render(KUBERNETES / "kserve"), render(KUBERNETES / "base")
    runtime = manifests["ServingRuntime/birnn"]["spec"]
    (served,) = runtime["containers"]
    alike = container(base)
    for field in ("image", "args", "lifecycle", "resources", "volumeMounts"):
        assert served[field] == alike[field]
    assert runtime["volumes"] == pod(base)["volumes"]
    assert served["securityContext"].items() >= alike["securityContext"].items()
    assert {variable["name"] for variable in served["env"]} <= {
        ENV_PREFIX + field.upper() for field in Settings.model_fields
    }
    given = {variable["name"]: variable["value"] for variable in served["env"]}
    for name in ("BIRNN_MAX_CONNECTION_SECONDS", "BIRNN_READINESS", "BIRNN_MODELS_POLL"):
        assert given[name] == settings_of(base)[name]
    kubernetes_validate.validate(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "birnn"},
            "spec": {"containers": [served], "volumes": runtime["volumes"]},
        },
        RELEASES[-1],
        strict=True,
    )
    for name, protocol, port in (("molecules", "v2", 8000), ("molecules-grpc", "grpc-v2", 8001)):
        predictor = manifests[f"InferenceService/{name}"]["spec"]["predictor"]
        asked = predictor["model"]
        assert asked["protocolVersion"] == protocol
        assert protocol in runtime["protocolVersions"]
        (listened,) = asked.get("ports", served["ports"])
        assert listened["containerPort"] == port
        (known,) = runtime["supportedModelFormats"]
        assert asked["modelFormat"].items() <= known.items()
        assert predictor["enableServiceLinks"] is False
        assert predictor["terminationGracePeriodSeconds"] == pod(base)["terminationGracePeriodSeconds"]
