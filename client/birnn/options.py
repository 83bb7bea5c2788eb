"""What a call may be told beside its input; `BaseClient` says what each means."""

from typing import Literal, TypeAlias, TypedDict

ElementType: TypeAlias = Literal["float32", "float16", "int8"]
Priority: TypeAlias = Literal["high", "normal", "low"]
Version: TypeAlias = str | int | None


class Options(TypedDict, total=False):
    """Of every call."""

    timeout: float | None
    truncate: bool
    normalize: bool
    priority: Priority


class VectorOptions(Options, total=False):
    """Of a call that gives nothing but vectors."""

    on_error: Literal["raise", "nan"]


class TokenOptions(Options, total=False):
    """Of a call that gives nothing but vectors of tokens."""

    on_error: Literal["raise", "empty"]
