"""The types of settings, and the prefix of their variables."""

from typing import Annotated

from pydantic import Field

ENV_PREFIX = "BIRNN_"

Port = Annotated[int, Field(ge=0, le=65535)]
Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(ge=0)]
# A time limit, at most a week.
Limit = Annotated[float, Field(gt=0, le=604_800)]
