"""Where spans go: the setting, and OpenTelemetry's own variables."""

import logging
import os
import sys
from typing import Any

import pytest

from birnn_service.errors import StartupError
from birnn_service.observe.otlp import open_collector, otlp_url
from birnn_service.settings_reader import load_settings

HERE = "http://127.0.0.1:4318"
ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("OTEL_"):
            monkeypatch.delenv(name)


def url(endpoint: str | None = None) -> str | None:
    return otlp_url(load_settings({} if endpoint is None else {"otlp_endpoint": endpoint}))


def test_spans_go_nowhere_unless_that_is_asked_for() -> None:
    assert url() is None
    assert url("") is None


@pytest.mark.parametrize("endpoint", [HERE, f"{HERE}/", f"{HERE}/v1/traces"])
def test_an_endpoint_is_a_base_or_the_whole_url(endpoint: str) -> None:
    assert url(endpoint) == f"{HERE}/v1/traces"


def test_the_standard_variables_count_and_the_setting_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENDPOINT, f"{HERE}/base")
    assert url() == f"{HERE}/base/v1/traces"
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", f"{HERE}/as/it/is")
    assert url() == f"{HERE}/as/it/is"
    assert url("https://other") == "https://other/v1/traces"


@pytest.mark.parametrize(("name", "value"), [("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_EXPORTER", "none")])
def test_traces_can_be_switched_off(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(ENDPOINT, HERE)
    monkeypatch.setenv(name, value)
    with caplog.at_level(logging.INFO):
        assert url() is None
        assert url(HERE) is None
    assert name in caplog.text


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf"),
        ({"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/json"}, "http/json"),
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER is zipkin"),
        ({ENDPOINT: "collector:4317"}, f"{ENDPOINT} must be a URL of http or https"),
    ],
)
def test_variables_that_ask_for_something_else_are_refused(
    variables: dict[str, str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {ENDPOINT: HERE, **variables}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(StartupError) as caught:
        url()
    assert words in str(caught.value)


def test_variables_that_settings_stand_for_are_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_on")
    assert url(HERE) is not None
    assert "OTEL_TRACES_SAMPLER is set, and not read: see --trace-ratio" in caplog.text


@pytest.mark.parametrize("endpoint", ["collector:4318", "ftp://collector", "//collector"])
def test_a_setting_that_is_no_url_is_refused(endpoint: str) -> None:
    with pytest.raises(StartupError, match=r"--otlp-endpoint .*must be a URL of http or https"):
        load_settings({"otlp_endpoint": endpoint})


def test_without_opentelemetry_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    missing: Any = None
    monkeypatch.setitem(sys.modules, "opentelemetry", missing)
    monkeypatch.delitem(sys.modules, "birnn_service.observe.otlp_collector", raising=False)
    with pytest.raises(StartupError) as caught:
        open_collector(f"{HERE}/v1/traces", "engine")
    assert "pip install 'birnn-serving[otel]'" in str(caught.value)


def test_what_the_exporter_cannot_use_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_PYTHON_EXPORTER_OTLP_HTTP_CREDENTIAL_PROVIDER", "nobody")
    with pytest.raises(StartupError, match=r"OpenTelemetry's variables .*'nobody' not found"):
        open_collector(f"{HERE}/v1/traces", "engine")
