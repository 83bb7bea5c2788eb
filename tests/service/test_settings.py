import re
from pathlib import Path
from typing import Any

import pytest

from birnn_service.errors import StartupError
from birnn_service.settings_reader import load_settings


def write(folder: Path, text: str) -> Path:
    path = folder / "birnn.toml"
    path.write_text(text)
    return path


def test_flags_win_over_variables_which_win_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = write(tmp_path, 'grpc_port = 1\nmetrics_port = 2\nhost = "file"\n')
    monkeypatch.setenv("BIRNN_METRICS_PORT", "20")
    monkeypatch.setenv("BIRNN_HOST", "variable")
    settings = load_settings({"host": "flag", "insecure": True}, config)
    assert (settings.grpc_port, settings.metrics_port, settings.host) == (1, 20, "flag")


def test_defaults_listen_on_loopback_only() -> None:
    assert load_settings({}).host == "127.0.0.1"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "server.example"])
def test_beyond_this_machine_traffic_is_protected_or_said_not_to_be(host: str) -> None:
    with pytest.raises(StartupError, match=r"--tls-cert and --tls-key, or --insecure \(BIRNN_INSECURE=true\)"):
        load_settings({"host": host})
    load_settings({"host": host, "insecure": "true"})
    load_settings({"host": host, "tls_cert": "cert.pem", "tls_key": "key.pem"})


@pytest.mark.parametrize("host", ["localhost", "127.0.0.2", "::1"])
def test_within_this_machine_nothing_need_be_said(host: str) -> None:
    load_settings({"host": host})


@pytest.mark.parametrize("given", [["tls_cert"], ["tls_key"], ["tls_client_ca"], ["tls_cert", "tls_client_ca"]])
def test_files_of_tls_go_together(given: list[str]) -> None:
    with pytest.raises(StartupError, match="--tls-cert and --tls-key go together"):
        load_settings(dict.fromkeys(given, "file.pem"))


@pytest.mark.parametrize(
    ("given", "takes_orders"),
    [
        ({}, False),
        ({"host": "127.0.0.1"}, True),
        ({"tokens": "tokens.jsonl"}, True),
        ({"jwks": "keys.json", "jwt_issuer": "issuer", "jwt_audience": "birnn"}, True),
        ({"tokens": "tokens.jsonl", "admin": False}, False),
        ({"admin": True}, True),
    ],
)
def test_who_may_give_orders_where_nothing_else_is_said(given: dict[str, Any], takes_orders: bool) -> None:
    assert load_settings({"host": "0.0.0.0", "insecure": True, **given}).takes_orders is takes_orders


@pytest.mark.parametrize(
    "origins",
    ["*", "null", "https://app.example", "http://localhost:3000, https://[::1]:8443", "chrome-extension://abc", " , "],
)
def test_origins_of_pages(origins: str) -> None:
    load_settings({"cors_origins": origins, "http_port": "8000"})


@pytest.mark.parametrize(
    "origin", ["https://app.example/", "https://app.example/page", "app.example", "https://", "https://*/", "**"]
)
def test_origins_that_no_page_has_are_refused(origin: str) -> None:
    with pytest.raises(StartupError, match=rf"--cors-origins holds '{re.escape(origin)}', and no page has"):
        load_settings({"cors_origins": f"https://other.example,{origin}", "http_port": "8000"})


def test_origins_without_a_port_for_http_are_refused() -> None:
    with pytest.raises(StartupError, match="--cors-origins is about calls over HTTP; give --http-port, too"):
        load_settings({"cors_origins": "https://app.example"})


@pytest.mark.parametrize("name", ["load_seconds", "source_seconds", "source_stall_seconds", "load_memory_mib"])
def test_limits_of_loading_are_limits(name: str) -> None:
    for value in ("0", "inf", "nan", "1e300", "99999999999999"):
        with pytest.raises(StartupError, match="--" + name.replace("_", "-")):
            load_settings({name: value})


def test_every_problem_is_listed_with_its_flag_variable_and_key() -> None:
    with pytest.raises(StartupError) as caught:
        load_settings({"grpc_port": "70000", "drain_seconds": "-1"})
    expected = "--grpc-port (BIRNN_GRPC_PORT, TOML `grpc_port`): '70000' should be less than or equal to 65535"
    assert expected in str(caught.value)
    assert "--drain-seconds" in str(caught.value)


def test_an_unknown_variable_is_an_error_that_lists_the_known_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIRNN_XYZ", "1")
    with pytest.raises(StartupError, match=r"BIRNN_XYZ; known are .*BIRNN_GRPC_PORT"):
        load_settings({})


def test_a_misspelt_variable_is_an_error_that_names_what_was_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIRNN_MAX_SEQUENCE", "1")
    with pytest.raises(StartupError, match=r"BIRNN_MAX_SEQUENCE \(did you mean BIRNN_MAX_SEQUENCES\?\)"):
        load_settings({})


def test_variables_of_the_client_are_not_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIRNN_ADDRESS", "127.0.0.1:1")
    monkeypatch.setenv("BIRNN_TOKEN", "secret")
    load_settings({})


def test_an_unknown_key_in_the_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match=r"modles \(did you mean models\?\) in .*birnn\.toml; known are .*grpc_port"):
        load_settings({}, write(tmp_path, 'modles = "x"\n'))


def test_one_port_for_both_is_an_error_but_a_free_one_each_is_not() -> None:
    with pytest.raises(StartupError, match=r"^--grpc-port and --metrics-port are both 8001; each needs"):
        load_settings({"metrics_port": "8001"})
    load_settings({"grpc_port": "0", "metrics_port": "0"})


@pytest.mark.parametrize("text", ["models = ", "\x00"])
def test_a_broken_file_is_an_error_that_names_it(tmp_path: Path, text: str) -> None:
    with pytest.raises(StartupError, match=r"birnn\.toml"):
        load_settings({}, write(tmp_path, text))


JWKS = {"jwks": "keys.json", "jwt_issuer": "https://issuer.example", "jwt_audience": "birnn"}


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ({}, True),
        ({"host": "0.0.0.0"}, False),
        ({"host": "0.0.0.0", "tls_cert": "cert.pem", "tls_key": "key.pem", "tls_client_ca": "ca.pem"}, False),
        ({"host": "0.0.0.0", "tokens": "tokens"}, True),
        ({"host": "0.0.0.0", **JWKS}, True),
        ({"host": "0.0.0.0", "admin": "true"}, True),
        ({"tokens": "tokens", **JWKS, "admin": "false"}, False),
    ],
)
def test_orders_are_taken_where_callers_can_have_a_right_to_give_them(given: dict[str, str], taken: bool) -> None:
    assert load_settings({**given, "insecure": True}).takes_orders is taken


@pytest.mark.parametrize(
    ("settings", "described"),
    [
        ({}, True),
        ({"host": "127.0.0.2"}, True),
        ({"host": "localhost"}, True),
        ({"host": "::1"}, True),
        ({"host": "0.0.0.0"}, False),
        ({"host": "::"}, False),
        ({"host": "192.0.2.1"}, False),
        ({"host": "birnn.example"}, False),
        ({"host": "0.0.0.0", "describe": "true"}, True),
        ({"describe": "false"}, False),
    ],
)
def test_only_this_machine_is_told_what_can_be_called_unless_the_settings_say_so(
    settings: dict[str, str], described: bool
) -> None:
    assert load_settings({**settings, "insecure": True}).describes is described
