from pathlib import Path

import kubernetes_validate
import pytest

from birnn_service.protocols.health import LIVENESS
from birnn_service.setting_types import ENV_PREFIX
from birnn_service.settings import Settings
from tests.chaos.test_memory import SHIPPED
from tests.deploy.queries import read_groups
from tests.deploy.rendering import (
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

pytestmark = needs_renderer


@pytest.fixture(scope="module")
def base() -> Manifests:
    return render(KUBERNETES / "base")


@pytest.fixture(scope="module")
def gpu() -> Manifests:
    return render(KUBERNETES / "overlays" / "gpu")


def test_encoders_may_come_from_an_object_store(tmp_path: Path) -> None:
    place = {"name": "birnn-settings", "behavior": "merge", "literals": ["BIRNN_MODELS=s3://my-bucket/models"]}
    manifests = with_components(tmp_path, "object-store", configMapGenerator=[place])
    for release in RELEASES:
        kubernetes_validate.validate(manifests["Deployment/birnn"], release, strict=True)
    settings = settings_of(manifests)
    assert settings["BIRNN_MODELS"] == "s3://my-bucket/models"
    # What comes into the store later is found, and one broken version there keeps no pod from being ready.
    assert float(settings["BIRNN_MODELS_POLL"]) > 0
    assert settings["BIRNN_READINESS"] == "serving"
    server = container(manifests)
    places = {mount["mountPath"] for mount in server["volumeMounts"]}
    [cache] = (variable["value"] for variable in server["env"] if variable["name"] == "BIRNN_CACHE_DIR")
    assert cache in places
    assert "/tmp" in places
    longest = server["startupProbe"]["failureThreshold"] * server["startupProbe"]["periodSeconds"]
    assert longest >= Settings.model_fields["source_seconds"].default


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("variant", ["base", "overlays/gpu"])
def test_every_manifest_follows_the_schemas_of_kubernetes(variant: str, release: str) -> None:
    for manifest in render(KUBERNETES / variant).values():
        kubernetes_validate.validate(manifest, release, strict=True)


@pytest.mark.parametrize("variant", ["base", "overlays/gpu"])
def test_selectors_find_the_pods_that_they_are_for(variant: str) -> None:
    manifests = render(KUBERNETES / variant)
    labels = manifests["Deployment/birnn"]["spec"]["template"]["metadata"]["labels"].items()
    selectors = [
        manifests["Deployment/birnn"]["spec"]["selector"]["matchLabels"],
        manifests["PodDisruptionBudget/birnn"]["spec"]["selector"]["matchLabels"],
        manifests["Service/birnn"]["spec"]["selector"],
        manifests["Service/birnn-http"]["spec"]["selector"],
        manifests["Service/birnn-metrics"]["spec"]["selector"],
    ]
    assert all(selector and selector.items() <= labels for selector in selectors)


def test_clients_of_grpc_see_every_pod_and_others_one_address(base: Manifests) -> None:
    ports = {port["name"]: port["containerPort"] for port in container(base)["ports"]}
    services = [base[f"Service/birnn{name}"]["spec"] for name in ("", "-http", "-metrics")]
    grpc, *others = services
    assert grpc["clusterIP"] == "None"
    for service in others:
        assert service.get("type", "ClusterIP") == "ClusterIP"
        assert "clusterIP" not in service
    assert [ports[port["targetPort"]] for service in services for port in service["ports"]] == [8001, 8000, 8002]


def test_kubernetes_probes_the_servers_own_health_services(base: Manifests) -> None:
    probes = {name: container(base)[f"{name}Probe"]["grpc"] for name in ("startup", "liveness", "readiness")}
    assert all(probe["port"] == 8001 for probe in probes.values())
    assert {name: probe["service"] for name, probe in probes.items()} == {
        "startup": LIVENESS,
        "liveness": LIVENESS,
        "readiness": "",
    }


def test_a_pod_has_time_to_drain(base: Manifests) -> None:
    settings = settings_of(base)
    pause = container(base)["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod(base)["terminationGracePeriodSeconds"] > pause + float(settings["BIRNN_DRAIN_SECONDS"])


def test_pods_get_only_variables_that_the_server_knows(base: Manifests) -> None:
    settings = settings_of(base)
    assert settings.keys() <= {ENV_PREFIX + field.upper() for field in Settings.model_fields}
    # Kubernetes' own would be BIRNN_SERVICE_HOST and the like, which stop the start-up.
    assert pod(base)["enableServiceLinks"] is False


def test_what_takes_calls_in_the_clear_says_so(base: Manifests) -> None:
    settings = settings_of(base)
    assert settings[f"{ENV_PREFIX}INSECURE"] == "true"


@pytest.mark.parametrize("variant", ["base", "overlays/gpu"])
def test_with_the_tls_component_every_port_has_tls_and_probes_need_no_certificate(variant: str, tmp_path: Path) -> None:
    manifests = with_components(tmp_path, "tls", base=variant)
    for manifest in manifests.values():
        kubernetes_validate.validate(manifest, RELEASES[-1], strict=True)
    given = settings_of(manifests)
    served = container(manifests)
    (mount,) = (mount for mount in served["volumeMounts"] if mount["name"] == "tls")
    assert Path(given["BIRNN_TLS_CERT"]).parent == Path(given["BIRNN_TLS_KEY"]).parent == Path(mount["mountPath"])
    assert given["BIRNN_INSECURE"] == "false"
    assert given["BIRNN_DRAIN_SECONDS"] == "20"
    assert [reference["configMapRef"]["name"] for reference in served["envFrom"]] == [
        name.removeprefix("ConfigMap/") for name in manifests if name.startswith("ConfigMap/")
    ]
    for name, path in (("startup", "/healthz"), ("liveness", "/healthz"), ("readiness", "/readyz")):
        assert served[f"{name}Probe"]["httpGet"] == {"path": path, "port": "metrics", "scheme": "HTTPS"}
        assert "grpc" not in served[f"{name}Probe"]
    annotations = manifests["Deployment/birnn"]["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/scheme"] == "https"
    assert annotations["prometheus.io/scrape"] == "true"
    (volume,) = (volume for volume in pod(manifests)["volumes"] if volume["name"] == "tls")
    assert volume["secret"] == {"secretName": "birnn-tls", "defaultMode": 0o440}
    ports = [
        port
        for name, manifest in manifests.items()
        if name.startswith("Service/")
        for port in manifest["spec"]["ports"]
    ]
    assert [port["appProtocol"] for port in ports] == ["https"] * len(ports)


def test_with_both_components_prometheus_scrapes_with_tls(tmp_path: Path) -> None:
    manifests = with_components(tmp_path, "service-monitor", "tls")
    (endpoint,) = manifests["ServiceMonitor/birnn"]["spec"]["endpoints"]
    assert endpoint["scheme"] == "https"
    assert endpoint["tlsConfig"]["serverName"] == "birnn-metrics"
    assert endpoint["tlsConfig"]["ca"]["secret"]["name"] == "birnn-tls"


def test_a_pod_has_the_memory_that_the_memory_tests_assume(base: Manifests) -> None:
    assert container(base)["resources"]["limits"]["memory"] == f"{SHIPPED // 1024}Gi"
    # It is read from the container's limit, which a setting would override.
    settings = settings_of(base)
    assert f"{ENV_PREFIX}MEMORY_MIB" not in settings


@pytest.mark.parametrize("variant", ["base", "overlays/gpu"])
def test_pods_satisfy_the_restricted_security_standard(variant: str) -> None:
    manifests = render(KUBERNETES / variant)
    assert pod(manifests)["securityContext"]["runAsNonRoot"] is True
    assert pod(manifests)["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container(manifests)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_the_gpu_overlay_asks_for_a_gpu_and_for_cuda(gpu: Manifests) -> None:
    served = container(gpu)
    assert served["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert served["args"] == ["serve", "--device", "cuda"]
    assert served["image"].endswith("-gpu")


def test_the_service_monitor_finds_the_metrics_service(tmp_path: Path) -> None:
    manifests = with_components(tmp_path, "service-monitor")
    monitor, metrics = manifests["ServiceMonitor/birnn"]["spec"], manifests["Service/birnn-metrics"]
    assert monitor["selector"]["matchLabels"].items() <= metrics["metadata"]["labels"].items()
    assert [endpoint["port"] for endpoint in monitor["endpoints"]] == [
        port["name"] for port in metrics["spec"]["ports"]
    ]
    assert metrics["metadata"]["labels"][monitor["jobLabel"]] == "birnn"
    assert manifests["PrometheusRule/birnn"]["spec"]["groups"] == read_groups()
