"""The server's settings: one typed model, each field a flag, a BIRNN_* variable or a TOML key."""

import difflib
import itertools
import os
import re
import tomllib
from collections.abc import Collection, Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from birnn_bundle.quoting import shown
from birnn_service.engine.engine import Device, EngineName, Precision
from birnn_service.errors import StartupError
from birnn_service.memory import available_memory
from birnn_service.repository.candidates import read_candidates
from birnn_service.repository.version_policy import VersionPolicy, read_policy
from birnn_service.sources.options import StoreOptions
from birnn_service.state import Address
from birnn_service.transports.socket_address import SocketAddress

ENV_PREFIX = "BIRNN_"
# Variables that other parts of birnn read: the `birnn` command and setup.py.
FOREIGN_VARIABLES = {"BIRNN_CONFIG", "BIRNN_ADDRESS", "BIRNN_TOKEN", "BIRNN_KERNELS"}

# What browsers say of a page: its scheme, host and port, or `null` where it has none of these.
ORIGIN = re.compile(r"\*|null|[a-z][a-z0-9+.-]*://[^/?#@\s]+")

Port = Annotated[int, Field(ge=0, le=65535)]
Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(ge=0)]
# Of what must end: a week at most.
Limit = Annotated[float, Field(gt=0, le=604_800)]


def _as_text(value: object) -> object:
    return str(value) if isinstance(value, Path) else value


class Settings(BaseSettings):
    """What `birnn serve` can be told; a flag wins over a BIRNN_* variable, which wins over the TOML file."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, extra="forbid", frozen=True)

    models: Annotated[str | None, BeforeValidator(_as_text)] = Field(
        None,
        description="Where encoders are, as NAME/VERSION/manifest.json: a folder, s3://BUCKET/PREFIX, "
        "gs://BUCKET/PREFIX, az://CONTAINER/PREFIX or https://HOST/PATH. By default ./models where it exists, else the "
        "encoders of the installed package birnn-encoders.",
    )
    trust: Path | None = Field(
        None,
        description="PEM file of public keys, as `birnn models keygen` writes them. With it, only bundles are served "
        "that one of them has signed. It is read again for each bundle.",
    )
    versions: str = Field(
        "all",
        description="Versions to serve: all; latest:N, the N highest good ones; or some, such as 1,3. NAME= before it "
        "is for one encoder, and ; stands between several: latest:1;smiles=1,2. Versions with an alias are always "
        "served.",
    )
    models_poll: Seconds | None = Field(
        None,
        description="Seconds between two looks for new, changed and removed versions; by default 5 in a folder and 60 "
        "in a store. 0 looks only when ordered.",
    )
    load_seconds: Limit = Field(
        120.0,
        description="How long one version may take to load, in the process that tries it first. Time in which that "
        "has to wait for a core does not count.",
    )
    load_memory_mib: Annotated[int, Field(ge=256, le=1 << 30)] | None = Field(
        None,
        description="Most memory of the process that tries versions before they are loaded, in MiB; by default half of "
        "the memory that the server may take, at least 1024.",
    )
    readiness: Literal["serving", "strict"] = Field(
        "serving",
        description="When the server is ready. serving: each encoder found has had a good version. strict: no version "
        "is broken.",
    )
    admin: bool | None = Field(
        None,
        description="Whether callers may order versions to be loaded and unloaded. By default with --tokens, which "
        "then need the right `admin`, and where --host is this machine alone.",
    )
    shadow: str = Field(
        "",
        description="Candidate versions and the share of their encoders' sequences that they are also asked for, such "
        "as smiles/3=0.1, separated by commas. Nobody gets their answers: they are compared with those served, in "
        "birnn_shadow_*. Calls that name no version do not get a candidate.",
    )
    transport: Literal["grpcio", "native", "auto"] = Field(
        "grpcio",
        description="What takes gRPC calls. grpcio: the server of that library. native: our own front end, which costs "
        "less for each call and has no TLS. auto: native where it was built and can do what the settings ask for.",
    )
    host: str = Field("127.0.0.1", description="Address to listen on; 0.0.0.0 for all.")
    grpc_port: Port = Field(8001, description="gRPC port; 0 takes a free one.")
    http_port: Port | None = Field(
        None,
        description="HTTP port of OpenAI's embeddings and of the Open Inference Protocol, usually 8000; 0 takes a free "
        "one. By default there is none.",
    )
    cors_origins: str = Field(
        "",
        description="Web pages that may call over HTTP, by their origins, separated by commas; * for all. None by "
        "default.",
    )
    metrics_port: Port = Field(8002, description="HTTP port of /metrics, /healthz and /readyz; 0 takes a free one.")
    tokens: Path | None = Field(
        None,
        description="File of tokens, as `birnn tokens add` writes it. With one, calls need `authorization: Bearer "
        "TOKEN`, and callers are known by the names of their tokens; /metrics needs the right `metrics`.",
    )
    jwks: Path | None = Field(
        None,
        description="File of the public keys (JWKS) of an issuer of JWTs. With it, callers may send a JWT instead of a "
        "token of --tokens: its scopes birnn:encode, birnn:metrics and so on are its rights.",
    )
    jwt_issuer: str | None = Field(None, description="Who issues JWTs: the claim `iss`. Needed with --jwks.")
    jwt_audience: str | None = Field(
        None, description="What JWTs for this server have as their audience: the claim `aud`. Needed with --jwks."
    )
    jwt_name_claim: Annotated[str, Field(min_length=1)] = Field(
        "sub", description="The claim of a JWT that names the caller."
    )
    caller_header: Annotated[str, Field(pattern=r"^([a-z0-9][a-z0-9-]*)?$")] = Field(
        "",
        description="Header or metadata, in lower case, in which a gateway says who calls, such as x-birnn-caller. It "
        "is believed: set it only where all calls come through the gateway. With --tokens the gateway's token needs "
        "the right `gateway`.",
    )
    describe: bool | None = Field(
        None,
        description="Whether gRPC reflection and /openapi.json answer. By default only where --host is this machine "
        "alone.",
    )
    tls_cert: Path | None = Field(
        None,
        description="PEM file of the certificate, and of those between it and its authority, for all ports. It is "
        "read again when it changes.",
    )
    tls_key: Path | None = Field(None, description="PEM file of the certificate's key, without a password.")
    tls_client_ca: Path | None = Field(
        None,
        description="PEM file of the authority of callers' certificates; with it every caller over gRPC and HTTP must "
        "have one, and is known by the name in it. The metrics port asks for none.",
    )
    insecure: bool = Field(False, description="Listen beyond this machine without TLS, too.")
    device: Device = Field(
        "auto", description="Where encoders run. `auto` takes CUDA where it works and says what it chose."
    )
    engine: EngineName = Field(
        "auto",
        description="What runs encoders. `auto` takes the native engine on a CPU where it is built and can run them.",
    )
    precision: Precision = Field(
        "fp32",
        description="Of the arithmetic: bf16 exists on CPUs with the native engine, fp16 on CUDA, both only where the "
        "bundle allows it. `auto` takes what is fastest among the allowed.",
    )
    slots: Count | None = Field(
        None, description="Batches that run at the same time; by default one per core on a CPU, two on a GPU."
    )
    frontends: Annotated[int, Field(ge=0, le=256)] = Field(
        0,
        description="Processes that take calls, tokenize and write replies in front of the one that owns the engines. "
        "Worth it where that work is the limit: on a GPU or many cores, one for every 3,000 calls a second or so. "
        "0 does everything in one process, the best on few cores. Linux only.",
    )
    frontend_memory_mib: Count = Field(
        4096,
        description="Most memory that each front-end shares with the engine process, in MiB, for requests under way "
        "and their results; it is taken as it is needed.",
    )
    gpu_memory_mib: Count = Field(4096, description="Most GPU memory for each encoder, in MiB.")
    cache_mib: Annotated[int, Field(ge=0)] = Field(
        0, description="Response cache, in MiB: pooled encodings by exact tokens, the latest asked for. 0 keeps none."
    )
    cache_dir: Path | None = Field(
        None,
        description="Where measured costs and fetched bundles are kept between starts; by default in the user's cache "
        "folder.",
    )
    max_sequences: Count = Field(16_384, description="Most sequences in one call.")
    max_sequence_bytes: Count = Field(65_536, description="Longest sequence, in bytes; longer ones fail alone.")
    max_message_mib: Annotated[int, Field(ge=1, le=2047)] = Field(
        16,
        description="Largest request message, in MiB. Reading one takes the event loop about a millisecond for each "
        "of these, and others wait.",
    )
    max_reply_mib: Annotated[int, Field(ge=1, le=2047)] | None = Field(
        None,
        description="Largest reply, in MiB; calls for more are told to split the request. By default a sixteenth of "
        "the memory that the server may take, at most 1024.",
    )
    memory_mib: Annotated[int, Field(ge=256)] | None = Field(
        None,
        description="Memory that the server may take, in MiB; by default what its container or machine grants. Half of "
        "it is for calls under way: those that would need more get RESOURCE_EXHAUSTED.",
    )
    max_calls: Count = Field(
        8192,
        description="Most calls under way, three quarters of them of one caller; beyond that they get "
        "RESOURCE_EXHAUSTED, before they are read. A quarter as many may watch the server's health beside them.",
    )
    stream_window: Annotated[int, Field(ge=1, le=65_536)] = Field(
        256, description="Most requests under way on one stream; further ones are read when others have been answered."
    )
    max_backlog_seconds: Annotated[float, Field(gt=0)] = Field(
        30.0,
        description="Most work that may wait, in predicted seconds; beyond that, callers that exceed their share get "
        "RESOURCE_EXHAUSTED.",
    )
    max_request_seconds: Annotated[float, Field(gt=0)] = Field(
        60.0, description="How long a request may take to arrive, from its first byte to its last."
    )
    max_reply_seconds: Annotated[float, Field(gt=0)] = Field(
        60.0, description="How long a caller may take to read a reply; then its connection is ended."
    )
    max_head_seconds: Annotated[float, Field(gt=0)] = Field(
        10.0,
        description="How long the head of an HTTP request may take to arrive, and with --transport native that of a "
        "gRPC call.",
    )
    max_idle_seconds: Count = Field(
        75, description="How long an HTTP connection may wait for its next request. Proxies keep theirs for 60 s."
    )
    max_connections: Count = Field(
        4096,
        description="Most HTTP connections, and with --transport native as many of gRPC; one caller has at most three "
        "quarters of them.",
    )
    max_connection_seconds: Annotated[float, Field(gt=0, le=86_400)] = Field(
        600.0, description="Age at which clients are asked to reconnect, so that they find new replicas; calls finish."
    )
    drain_seconds: Seconds = Field(20.0, description="How long calls in flight may take to finish after SIGTERM.")
    linger_seconds: Seconds = Field(
        0.5,
        description="How long the port stays open after SIGTERM at least: callers who have not heard of it get "
        "UNAVAILABLE, and can turn to another server.",
    )
    health_seconds: Annotated[float, Field(gt=0)] = Field(
        5.0, description="An encoder that has been idle this long proves itself with a real forward pass."
    )
    max_tolerance: Annotated[float, Field(gt=0, le=0.1)] = Field(
        1e-3,
        description="Largest absolute error against the float64 reference with which any bundle is served in float32, "
        "whatever its manifest allows.",
    )
    min_cosine: Annotated[float, Field(ge=0.9, lt=1)] = Field(
        0.9999,
        description="Least cosine of an encoding to its reference with which any bundle is served, in any precision.",
    )
    max_bundle_mib: Count = Field(
        2048, description="Most memory that the files of one bundle may take while it is loaded, in MiB."
    )
    source_stall_seconds: Limit = Field(
        20.0, description="How long a store of encoders may send nothing; then it counts as out of reach."
    )
    source_seconds: Limit = Field(
        600.0, description="How long a look at a store of encoders may take, and the fetching of one bundle."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level that is logged.")

    @model_validator(mode="after")
    def _ports_differ(self) -> Self:
        ports = {"--grpc-port": self.grpc_port, "--http-port": self.http_port, "--metrics-port": self.metrics_port}
        for (one, port), (other, same) in itertools.combinations(ports.items(), 2):
            if port and port == same:
                raise ValueError(f"{one} and {other} are both {port}; each needs a port of its own")
        return self

    @model_validator(mode="after")
    def _versions_can_be_read(self) -> Self:
        _ = self.version_policy
        _ = self.candidates
        return self

    @model_validator(mode="after")
    def _origins_can_call(self) -> Self:
        for origin in self.cors:
            if not ORIGIN.fullmatch(origin):
                raise ValueError(
                    f"--cors-origins holds {shown(origin)}, and no page has that origin; give it as browsers do, "
                    "https://HOST or https://HOST:PORT without a slash at its end, or * for all"
                )
        if self.cors and self.http_port is None:
            raise ValueError("--cors-origins is about calls over HTTP; give --http-port, too")
        return self

    @model_validator(mode="after")
    def _issuers_are_known(self) -> Self:
        if len({self.jwks is None, not self.jwt_issuer, not self.jwt_audience}) > 1:
            raise ValueError("--jwks, --jwt-issuer and --jwt-audience go together")
        return self

    @model_validator(mode="after")
    def _transport_can_do_it(self) -> Self:
        if self.transport == "native" and self.tls_cert is not None:
            raise ValueError("--transport native has no TLS, so it does not go with --tls-cert; use grpcio or auto")
        return self

    @model_validator(mode="after")
    def _traffic_is_protected(self) -> Self:
        if (self.tls_cert is None) != (self.tls_key is None) or (self.tls_client_ca and not self.tls_cert):
            raise ValueError("--tls-cert and --tls-key go together, and --tls-client-ca goes with both")
        if not (self.tls_cert or self.insecure or self.grpc_address.is_local):
            raise ValueError(
                f"--host {self.host} lets other machines read and change what is sent: give --tls-cert and --tls-key, "
                f"or --insecure ({ENV_PREFIX}INSECURE=true) where the network is trusted or something else protects it"
            )
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read variables only; flags and the TOML file are merged by `load_settings`."""
        return (init_settings, env_settings)

    @cached_property
    def memory_bytes(self) -> int:
        """Memory that the server may take, front-ends included."""
        return self.memory_mib << 20 if self.memory_mib else available_memory()

    @property
    def store_options(self) -> StoreOptions:
        """What bounds the fetching of bundles."""
        return StoreOptions(self.cache_dir, self.max_bundle_mib << 20, self.source_stall_seconds, self.source_seconds)

    @property
    def cors(self) -> list[str]:
        """Origins of the web pages that may call."""
        return [origin.strip() for origin in self.cors_origins.split(",") if origin.strip()]

    @cached_property
    def candidates(self) -> Mapping[Address, float]:
        """Versions that are asked for a share of the traffic, and that share."""
        return read_candidates(self.shadow)

    @property
    def describes(self) -> bool:
        """Whether callers are told what can be called."""
        return self.grpc_address.is_local if self.describe is None else self.describe

    @property
    def takes_orders(self) -> bool:
        """Whether callers may order versions to be loaded and unloaded."""
        if self.admin is None:
            return self.tokens is not None or self.grpc_address.is_local
        return self.admin

    @cached_property
    def version_policy(self) -> VersionPolicy:
        """Which versions are served."""
        return read_policy(self.versions)

    @property
    def load_memory_bytes(self) -> int:
        """Most memory of the process that tries versions."""
        return max(self.memory_bytes // 2, 1 << 30) if self.load_memory_mib is None else self.load_memory_mib << 20

    @property
    def grpc_address(self) -> SocketAddress:
        """Where gRPC listens."""
        return SocketAddress(self.host, self.grpc_port, "gRPC")

    @property
    def http_address(self) -> SocketAddress | None:
        """Where HTTP listens; None where it does not."""
        return None if self.http_port is None else SocketAddress(self.host, self.http_port, "HTTP")

    @property
    def process_memory_bytes(self) -> int:
        """Memory that each process that takes calls may take."""
        return self.memory_bytes // max(1, self.frontends)

    @property
    def call_memory_bytes(self) -> int:
        """Memory for the calls under way in each process that takes calls."""
        return self.process_memory_bytes // 2

    @cached_property
    def max_reply_bytes(self) -> int:
        """Largest reply; by default one that several callers can have at once. Every call asks for it."""
        if self.max_reply_mib:
            return self.max_reply_mib << 20
        return min(self.memory_bytes // 16, self.call_memory_bytes // 4, 1 << 30)


def load_settings(flags: Mapping[str, Any], config: Path | None = None) -> Settings:
    """Merge flags, BIRNN_* variables and a TOML file, in this order of precedence.

    Raises:
        StartupError: A value is out of range, or a key or variable is unknown; every problem is listed.
    """
    _refuse_unknown_variables()
    from_file = _read_toml(config) if config else {}
    # What a variable sets must win over the file, and pydantic-settings ranks arguments above variables.
    from_file = {key: value for key, value in from_file.items() if ENV_PREFIX + key.upper() not in os.environ}
    try:
        return Settings(**{**from_file, **flags})
    except ValidationError as error:
        raise StartupError("; ".join(_explain(problem) for problem in error.errors())) from None


def _refuse_unknown_variables() -> None:
    fields = [field.upper() for field in Settings.model_fields]
    ours = {name for name in os.environ if name.startswith(ENV_PREFIX)} - FOREIGN_VARIABLES
    names = [name.removeprefix(ENV_PREFIX) for name in sorted(ours)]
    if unknown := [_with_suggestion(name, fields, ENV_PREFIX) for name in names if name not in fields]:
        known = ", ".join(ENV_PREFIX + field for field in sorted(fields))
        raise StartupError(f"unknown variable {', '.join(unknown)}; known are {known}")


def _with_suggestion(name: str, known: Collection[str], prefix: str = "") -> str:
    """The name, with its prefix, and the known one that was probably meant."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"{prefix}{name} (did you mean {prefix}{close[0]}?)" if close else prefix + name


def _explain(problem: Any) -> str:
    message = problem["msg"].removeprefix("Value error, ").removeprefix("Input ")
    if not problem["loc"]:
        return str(message)
    field = ".".join(map(str, problem["loc"]))
    flag = "--" + field.replace("_", "-")
    return f"{flag} ({ENV_PREFIX}{field.upper()}, TOML `{field}`): {problem['input']!r} {message}"


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise StartupError(f"cannot read the configuration file {path}: {error}") from error
    known = Settings.model_fields
    if unknown := [_with_suggestion(key, known) for key in content if key not in known]:
        raise StartupError(f"unknown key {', '.join(unknown)} in {path}; known are {', '.join(sorted(known))}")
    return content
