"""The options of the client's methods. `BaseClient.encode` explains each of them."""

from typing import Literal, TypeAlias, TypedDict

ElementType: TypeAlias = Literal["float32", "float16", "int8"]
Priority: TypeAlias = Literal["high", "normal", "low"]
Version: TypeAlias = str | int | None


class Options(TypedDict, total=False):
    """Options of every method that encodes."""

    timeout: float | None
    truncate: bool
    normalize: bool
    priority: Priority


class VectorOptions(Options, total=False):
    """Options of the methods that return only vectors."""

    on_error: Literal["raise", "nan"]


class TokenOptions(Options, total=False):
    """Options of the methods that return only vectors per token or step."""

    on_error: Literal["raise", "empty"]
