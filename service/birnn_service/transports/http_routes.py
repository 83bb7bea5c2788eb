"""Which path of a URL leads where."""

from collections.abc import Mapping
from typing import Generic, TypeVar

from birnn_bundle.quoting import shown
from birnn_service.errors import Code, InvalidRequestError, ServiceError

T = TypeVar("T")
# The description of all paths, where there is one.
DOCUMENT = "/openapi.json"


class UnknownPathError(ServiceError):
    """Nothing is there."""

    code = Code.NOT_FOUND


class WrongMethodError(InvalidRequestError):
    """Something is there, for other methods, which `allow` lists."""

    status = 405

    def __init__(self, allow: str) -> None:
        super().__init__(f"use {allow}")
        self.allow = allow


class Routes(Generic[T]):
    """Paths, with names in braces for parts that vary: `/v2/models/{model}`."""

    def __init__(self, routes: Mapping[tuple[str, str], T]) -> None:
        """Lead to each target by its method and path."""
        self._fixed: dict[str, dict[str, T]] = {}
        # By the number of parts; few enough to try one after another.
        self._varying: dict[int, list[tuple[list[str], dict[str, T]]]] = {}
        for (method, path), target in routes.items():
            if path not in self._fixed:
                self._fixed[path] = {}
                if "{" in path:
                    parts = path.split("/")
                    self._varying.setdefault(len(parts), []).append((parts, self._fixed[path]))
            self._fixed[path][method] = target

    def find(self, method: str, path: str) -> tuple[T, dict[str, str]]:
        """The target of a request, and the parts that vary. HEAD is GET.

        Raises:
            UnknownPathError: There is none.
            WrongMethodError: There is one for another method.
        """
        methods = self._fixed.get(path)
        values: dict[str, str] = {}
        if methods is None or "{" in path:
            methods, values = self._match(path)
        target = methods.get("GET" if method == "HEAD" else method)
        if target is None:
            raise WrongMethodError(", ".join(sorted(methods)))
        return target, values

    def _match(self, path: str) -> tuple[dict[str, T], dict[str, str]]:
        parts = path.split("/")
        for pattern, methods in self._varying.get(len(parts), ()):
            values: dict[str, str] = {}
            for expected, part in zip(pattern, parts, strict=True):
                if expected.startswith("{") and part:
                    values[expected[1:-1]] = part
                elif expected != part:
                    break
            else:
                return methods, values
        raise UnknownPathError(
            f"nothing is at {shown(path)}" + (f"; see {DOCUMENT}" if DOCUMENT in self._fixed else "")
        )
