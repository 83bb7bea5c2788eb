"""The server's settings: one typed model, each field a flag, a BIRNN_* variable or a TOML key."""

import itertools
import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from birnn_bundle.precisions import LEAST_MIN_COSINE, MIN_COSINES
from birnn_bundle.quoting import shown
from birnn_service.engine.engine import Device, EngineName, Precision
from birnn_service.memory import available_memory
from birnn_service.repository.candidates import read_candidates
from birnn_service.repository.version_policy import VersionPolicy, read_policy
from birnn_service.sources.options import StoreOptions
from birnn_service.state import Address
from birnn_service.transports.socket_address import SocketAddress

ENV_PREFIX = "BIRNN_"

# The origin of a page as browsers send it: scheme, host and port, or `null` if it has none of these.
ORIGIN = re.compile(r"\*|null|[a-z][a-z0-9+.-]*://[^/?#@\s]+")

Port = Annotated[int, Field(ge=0, le=65535)]
Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(ge=0)]
# A time limit, at most a week.
Limit = Annotated[float, Field(gt=0, le=604_800)]


def _as_text(value: object) -> object:
    return str(value) if isinstance(value, Path) else value


class Settings(BaseSettings):
    """The settings of `birnn serve`. A flag wins over a BIRNN_* variable, which wins over the TOML file."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, extra="forbid", frozen=True)

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
    transport: Literal["grpcio", "native", "auto"] = Field(
        "grpcio",
        description="What takes gRPC calls. grpcio: the server of that library. native: our own front end, which costs "
        "less for each call and has no TLS. auto: native where it was built and can do what the settings ask for.",
    )
    host: str = Field("127.0.0.1", description="Address to listen on; 0.0.0.0 for all addresses.")
    grpc_port: Port = Field(8001, description="gRPC port; 0 for any free port.")
    http_port: Port | None = Field(
        None,
        description="HTTP port for OpenAI's embeddings API and the Open Inference Protocol, usually 8000; 0 for any "
        "free port. By default the server does not listen for HTTP.",
    )
    cors_origins: str = Field(
        "",
        description="Origins of the web pages that may call over HTTP, separated by commas; * for all. By default none "
        "may.",
    )
    metrics_port: Port = Field(8002, description="HTTP port of /metrics, /healthz and /readyz; 0 for any free port.")
    tokens: Path | None = Field(
        None,
        description="File of tokens, as `birnn tokens add` writes it. If it is given, calls need `authorization: "
        "Bearer TOKEN`, the name of the token identifies the caller, and /metrics needs the right `metrics`.",
    )
    jwks: Path | None = Field(
        None,
        description="File with the public keys (JWKS) of an issuer of JWTs. If it is given, callers may send a JWT "
        "instead of a token of --tokens. Its scopes birnn:encode, birnn:metrics and so on are its rights.",
    )
    jwt_issuer: str | None = Field(None, description="Issuer of the JWTs, the claim `iss`. Required with --jwks.")
    jwt_audience: str | None = Field(
        None, description="Audience of JWTs for this server, the claim `aud`. Required with --jwks."
    )
    jwt_name_claim: Annotated[str, Field(min_length=1)] = Field(
        "sub", description="The claim of a JWT that names the caller."
    )
    caller_header: Annotated[str, Field(pattern=r"^([a-z0-9][a-z0-9-]*)?$")] = Field(
        "",
        description="Header or metadata key, in lower case, in which a gateway names the caller, such as "
        "x-birnn-caller. The server trusts it, so set this only if all calls come through the gateway. With --tokens, "
        "the gateway's token needs the right `gateway`.",
    )
    describe: bool | None = Field(
        None,
        description="Whether to offer gRPC reflection and /openapi.json. By default only if --host is a loopback "
        "address.",
    )
    tls_cert: Path | None = Field(
        None,
        description="PEM file with the certificate and its intermediate certificates, for all ports. It is read again "
        "when it changes.",
    )
    tls_key: Path | None = Field(None, description="PEM file with the certificate's private key, without a password.")
    tls_client_ca: Path | None = Field(
        None,
        description="PEM file of the authority that signs callers' certificates. If it is given, every caller over "
        "gRPC and HTTP needs a certificate, and the name in it identifies the caller. The metrics port asks for none.",
    )
    insecure: bool = Field(False, description="Allow listening on other than loopback addresses without TLS.")
    device: Device = Field(
        "auto", description="Device that runs encoders. `auto` uses CUDA if it works, and logs its choice."
    )
    engine: EngineName = Field(
        "auto",
        description="Engine that runs encoders. On a CPU, `auto` uses the native engine if it was built and can run "
        "the encoder.",
    )
    precision: Precision = Field(
        "fp32",
        description="Of the arithmetic: bf16 and int8 exist on CPUs with the native engine, fp16 on CUDA, each only "
        "where the bundle allows it and passes the golden gate. `auto` takes the fastest that does, and logs why.",
    )
    slots: Count | None = Field(
        None, description="Number of batches that run at the same time; by default one per core on a CPU, two on a GPU."
    )
    frontends: Annotated[int, Field(ge=0, le=256)] = Field(
        0,
        description="Number of front-end processes, which take calls, tokenize and write replies for the process that "
        "owns the engines. They help if that work is the bottleneck: on a GPU or many cores, use one for about every "
        "3,000 calls per second. 0 does everything in one process, which is best on few cores. Linux only.",
    )
    frontend_memory_mib: Count = Field(
        4096,
        description="Limit, in MiB, of the memory that each front-end shares with the engine process for requests in "
        "progress and their results. It is allocated as needed.",
    )
    gpu_memory_mib: Count | None = Field(
        None,
        description="Most GPU memory of all encoders together, in MiB, those included that are loaded beside the ones "
        "they replace; by default four fifths of what is free at the start.",
    )
    cache_mib: Annotated[int, Field(ge=0)] = Field(
        0,
        description="Size of the response cache, in MiB. It keeps the pooled encodings asked for last, by exact "
        "tokens. 0 turns it off.",
    )
    cache_dir: Path | None = Field(
        None,
        description="Folder that keeps measured costs and fetched bundles between starts; by default in the user's "
        "cache folder.",
    )
    max_sequences: Count = Field(16_384, description="Maximum number of sequences in one call.")
    max_sequence_bytes: Count = Field(
        65_536, description="Maximum length of a sequence, in bytes; only longer ones fail."
    )
    max_message_mib: Annotated[int, Field(ge=1, le=2047)] = Field(
        16,
        description="Maximum size of a request message, in MiB. Reading one blocks the event loop for about a "
        "millisecond per MiB.",
    )
    max_reply_mib: Annotated[int, Field(ge=1, le=2047)] | None = Field(
        None,
        description="Maximum size of a reply, in MiB. The error for a larger one says to split the request. By default "
        "a sixteenth of the memory that the server may use, at most 1024.",
    )
    memory_mib: Annotated[int, Field(ge=256)] | None = Field(
        None,
        description="Memory that the server may use, in MiB; by default the limit of its container or machine. Half of "
        "it is for calls in progress. Calls that would need more get RESOURCE_EXHAUSTED.",
    )
    max_calls: Count = Field(
        8192,
        description="Maximum number of calls in progress. One caller may have three quarters of them. Further calls "
        "get RESOURCE_EXHAUSTED before they are read. A quarter as many health watches may run in addition.",
    )
    stream_window: Annotated[int, Field(ge=1, le=65_536)] = Field(
        256,
        description="Maximum number of requests in progress on one stream. Further ones are read once others have been "
        "answered.",
    )
    max_backlog_seconds: Annotated[float, Field(gt=0)] = Field(
        30.0,
        description="Maximum amount of queued work, in predicted seconds. Beyond that, callers that exceed their share "
        "get RESOURCE_EXHAUSTED.",
    )
    max_request_seconds: Annotated[float, Field(gt=0)] = Field(
        60.0, description="How long a request may take to arrive, from its first byte to its last, in seconds."
    )
    max_reply_seconds: Annotated[float, Field(gt=0)] = Field(
        60.0, description="How long a caller may take to read a reply, in seconds. Then its connection is closed."
    )
    max_head_seconds: Annotated[float, Field(gt=0)] = Field(
        10.0,
        description="How long the head of an HTTP request may take to arrive, in seconds; with --transport native that "
        "of a gRPC call, too.",
    )
    max_idle_seconds: Count = Field(
        75,
        description="How long an HTTP connection may wait for its next request, in seconds. Proxies usually keep "
        "connections for 60 s.",
    )
    max_connections: Count = Field(
        4096,
        description="Maximum number of HTTP connections, and with --transport native as many of gRPC. One caller may "
        "have three quarters of them.",
    )
    max_connection_seconds: Annotated[float, Field(gt=0, le=86_400)] = Field(
        600.0,
        description="Age of a connection, in seconds, at which its client is asked to reconnect, so that it finds new "
        "replicas. Calls in progress finish.",
    )
    drain_seconds: Seconds = Field(20.0, description="Seconds that calls in progress may take to finish after SIGTERM.")
    linger_seconds: Seconds = Field(
        0.5,
        description="Minimum time, in seconds, that the port stays open after SIGTERM. Callers that do not know of the "
        "shutdown yet get UNAVAILABLE, and can turn to another server.",
    )
    health_seconds: Annotated[float, Field(gt=0)] = Field(
        5.0, description="An encoder that has been idle for this many seconds is checked by a real forward pass."
    )
    max_tolerance: Annotated[float, Field(gt=0, le=0.1)] = Field(
        1e-3,
        description="Maximum absolute error against the float64 reference in float32. A bundle that exceeds it is not "
        "served, even if its manifest allows more.",
    )
    min_cosine: Annotated[float, Field(ge=LEAST_MIN_COSINE, lt=1)] | None = Field(
        None,
        description="Minimum cosine between an encoding and its reference, in any precision. A bundle below it is not "
        f"served. By default {MIN_COSINES['bf16']}, and {MIN_COSINES['int8']} in int8.",
    )
    max_bundle_mib: Count = Field(
        2048, description="Maximum memory for the files of one bundle while it is loaded, in MiB."
    )
    source_stall_seconds: Limit = Field(
        20.0, description="How long a store may send nothing before it counts as unreachable, in seconds."
    )
    source_seconds: Limit = Field(
        600.0, description="How long listing a store, or fetching one bundle, may take, in seconds."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Lowest level that is logged.")

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
        """Read variables only; flags and the TOML file are merged by `settings_reader.load_settings`."""
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
        """Candidate versions, and the share of the traffic that each gets copies of."""
        return read_candidates(self.shadow)

    @property
    def describes(self) -> bool:
        """Whether callers can get descriptions of the API."""
        return self.grpc_address.is_local if self.describe is None else self.describe

    @property
    def takes_orders(self) -> bool:
        """Whether callers may order versions to be loaded and unloaded."""
        if self.admin is None:
            return self.tokens is not None or self.jwks is not None or self.grpc_address.is_local
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
