"""Records: what travels with every request, as classes whose objects are made in a tenth of a microsecond."""

from dataclasses import dataclass
from typing import TypeVar, dataclass_transform

Class = TypeVar("Class")


@dataclass_transform(frozen_default=True, eq_default=False)
def record(cls: type[Class]) -> type[Class]:
    """A data class that the type checker does not let anyone change.

    `dataclass(frozen=True)` has Python enforce it, too, which makes an object five times as expensive: 3 us of the 70
    that a short call takes. Objects are compared by identity.
    """
    return dataclass(slots=True, eq=False)(cls)
