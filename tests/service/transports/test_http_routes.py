import pytest

from birnn_service.transports.http_routes import Routes, UnknownPathError, WrongMethodError

ROUTES = Routes(
    {
        ("GET", "/v2"): "server",
        ("GET", "/v2/models/{model}"): "model",
        ("POST", "/v2/models/{model}/infer"): "infer",
        ("POST", "/v2/models/{model}/versions/{version}/infer"): "infer",
        ("GET", "/v2/models/{model}/versions/{version}"): "model",
        ("GET", "/v2/models/{model}/ready"): "ready",
    }
)


@pytest.mark.parametrize(
    ("method", "path", "target", "values"),
    [
        ("GET", "/v2", "server", {}),
        ("HEAD", "/v2", "server", {}),
        ("GET", "/v2/models/a", "model", {"model": "a"}),
        ("GET", "/v2/models/a/ready", "ready", {"model": "a"}),
        ("POST", "/v2/models/a/versions/1/infer", "infer", {"model": "a", "version": "1"}),
        ("GET", "/v2/models/{model}", "model", {"model": "{model}"}),
    ],
)
def test_paths_lead_where_they_should(method: str, path: str, target: str, values: dict[str, str]) -> None:
    assert ROUTES.find(method, path) == (target, values)


@pytest.mark.parametrize(
    "path", ["", "/", "/v2/", "//v2", "/v2/models", "/v2/models/", "/v2/models//infer", "/" * 9999]
)
def test_other_paths_lead_nowhere(path: str) -> None:
    with pytest.raises(UnknownPathError, match="nothing is at"):
        ROUTES.find("GET", path)


def test_only_a_description_that_is_there_is_named() -> None:
    with pytest.raises(UnknownPathError, match=r"openapi\.json"):
        Routes({("GET", "/openapi.json"): "document"}).find("GET", "/")
    with pytest.raises(UnknownPathError, match=r"nothing is at '/'$"):
        ROUTES.find("GET", "/")


def test_other_methods_are_told_the_right_ones() -> None:
    with pytest.raises(WrongMethodError) as caught:
        ROUTES.find("DELETE", "/v2/models/a/infer")
    assert caught.value.allow == "POST"
