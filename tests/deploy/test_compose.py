import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "docker-compose.yml"
GPU = ROOT / "deploy" / "docker-compose.gpu.yml"
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["services"]

each_service = pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES.keys())


def test_compose_files_follow_the_compose_specification() -> None:
    command = [
        sys.executable,
        "-m",
        "check_jsonschema",
        "--builtin-schema",
        "vendor.compose-spec",
        str(COMPOSE),
        str(GPU),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


@each_service
def test_ports_are_open_to_this_machine_only(service: dict[str, Any]) -> None:
    assert service["ports"]
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])


def test_the_image_serves_http_where_compose_and_kubernetes_expect_it() -> None:
    image = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert "BIRNN_HTTP_PORT=8000" in image
    (ports,) = re.findall(r"^EXPOSE (.*)$", image, re.MULTILINE)
    assert [f"127.0.0.1:{port}:{port}" for port in ports.split()] == SERVICES["birnn"]["ports"]
    deployment = yaml.safe_load((ROOT / "deploy/kubernetes/base/deployment.yaml").read_text(encoding="utf-8"))
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert [str(port["containerPort"]) for port in container["ports"]] == ports.split()


def test_what_takes_calls_in_the_clear_says_so() -> None:
    assert SERVICES["birnn"]["environment"]["BIRNN_INSECURE"] == "true"
    assert "BIRNN_INSECURE=true" in (ROOT / "Dockerfile").read_text(encoding="utf-8")


@each_service
def test_containers_cannot_write_their_image_or_gain_privileges(service: dict[str, Any]) -> None:
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


@each_service
def test_containers_say_whether_they_are_well(service: dict[str, Any]) -> None:
    assert service["healthcheck"]["test"][0] == "CMD"


@each_service
def test_mounted_files_exist_and_stay_unchanged(service: dict[str, Any]) -> None:
    for volume in service.get("volumes", []):
        source, _, rest = volume.partition(":")
        if source.startswith("."):
            assert (ROOT / source).exists()
            assert rest.endswith(":ro")


def test_images_are_pinned_to_a_version() -> None:
    tags = {name: service["image"].partition(":")[2] for name, service in SERVICES.items()}
    assert all(tag and tag != "latest" for tag in tags.values()), tags


def test_the_dashboard_is_where_grafana_is_told_to_look() -> None:
    grafana = SERVICES["grafana"]
    mounts = {target: ROOT / source for source, target, _ in (volume.split(":") for volume in grafana["volumes"][:-1])}
    provider = ROOT / "deploy" / "grafana" / "provisioning" / "dashboards" / "birnn.yml"
    folder = yaml.safe_load(provider.read_text(encoding="utf-8"))["providers"][0]["options"]["path"]
    home = Path(grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert str(home.parent) == folder
    assert (mounts[folder] / home.name).is_file()


def test_grafana_calls_nobody_that_was_not_asked_for() -> None:
    environment = SERVICES["grafana"]["environment"]
    switched_off = {"REPORTING_ENABLED", "CHECK_FOR_UPDATES", "CHECK_FOR_PLUGIN_UPDATES"}
    assert {environment[f"GF_ANALYTICS_{name}"] for name in switched_off} == {"false"}
    assert environment["GF_NEWS_NEWS_FEED_ENABLED"] == environment["GF_SNAPSHOTS_EXTERNAL_ENABLED"] == "false"
    switched_on = {"PLUGINS_PREINSTALL_DISABLED", "PLUGINS_PUBLIC_KEY_RETRIEVAL_DISABLED", "SECURITY_DISABLE_GRAVATAR"}
    assert {environment[f"GF_{name}"] for name in switched_on} == {"true"}
