"""What all parts of a manifest have in common: strict types, and bounds of numbers and texts."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Text = Annotated[str, Field(max_length=10_000)]
Count = Annotated[int, Field(ge=0, le=1 << 53)]
Measured = Annotated[float, Field(allow_inf_nan=False)]


class StrictModel(BaseModel):
    """Unknown keys are errors, and so is text where a number belongs.

    A manifest from a newer version must not be half understood, and "1_0" must not be taken for 10.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
