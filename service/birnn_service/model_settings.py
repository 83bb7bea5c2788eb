"""Settings of what is served: where encoders come from, which versions are served, and how new ones are tried."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, Field, model_validator

from birnn_service.repository.candidates import read_candidates
from birnn_service.repository.version_policy import VersionPolicy, read_policy
from birnn_service.setting_types import Limit, Seconds
from birnn_service.state import Address


def _as_text(value: object) -> object:
    return str(value) if isinstance(value, Path) else value


class ModelSettings(BaseModel):
    """What is served."""

    models: Annotated[str | None, BeforeValidator(_as_text)] = Field(
        None,
        description="Source of encoders, laid out as NAME/VERSION/manifest.json: a folder, s3://BUCKET/PREFIX, "
        "gs://BUCKET/PREFIX, az://CONTAINER/PREFIX or https://HOST/PATH. By default ./models if it exists, else the "
        "encoders of the installed package birnn-encoders.",
    )
    trust: Path | None = Field(
        None,
        description="PEM file of public keys, as `birnn models keygen` writes them. If it is given, the server serves "
        "only bundles that one of these keys has signed. It is read again for each bundle.",
    )
    versions: str = Field(
        "all",
        description="Versions to serve: all; latest:N for the N highest good ones; or a list such as 1,3. Prefix a "
        "rule with NAME= to apply it to one encoder, and separate rules by semicolons: latest:1;smiles=1,2. Versions "
        "with an alias are always served.",
    )
    models_poll: Seconds | None = Field(
        None,
        description="Seconds between checks for new, changed and removed versions; by default 5 for a folder and 60 "
        "for a store. With 0, the server checks only when it is ordered to.",
    )
    load_seconds: Limit = Field(
        120.0,
        description="How long one version may take to load in the process that tries it first, in seconds. Time spent "
        "waiting for a core does not count.",
    )
    load_memory_mib: Annotated[int, Field(ge=256, le=1 << 30)] | None = Field(
        None,
        description="Memory limit, in MiB, of the process that tries versions before they are loaded; by default half "
        "of the memory that the server may use, at least 1024.",
    )
    readiness: Literal["serving", "strict"] = Field(
        "serving",
        description="When the server is ready. serving: every encoder that was found has had a good version. strict: "
        "no version is broken.",
    )
    admin: bool | None = Field(
        None,
        description="Whether callers may order the server to load and unload versions. By default only if --host is a "
        "loopback address, or with --tokens or --jwks, where callers need the right `admin`.",
    )
    shadow: str = Field(
        "",
        description="Candidate versions, separated by commas, each with the share of its encoder's sequences that it "
        "also encodes, such as smiles/3=0.1. Callers never get these results. They are compared with the results that "
        "callers get; see the metrics birnn_shadow_*. A call that names no version never gets a candidate.",
    )

    @model_validator(mode="after")
    def _versions_can_be_read(self) -> Self:
        _ = self.version_policy
        _ = self.candidates
        return self

    @cached_property
    def candidates(self) -> Mapping[Address, float]:
        """Candidate versions, and the share of the traffic that each gets copies of."""
        return read_candidates(self.shadow)

    @cached_property
    def version_policy(self) -> VersionPolicy:
        """Which versions are served."""
        return read_policy(self.versions)
