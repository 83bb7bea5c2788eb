"""Settings of who may call: addresses, transports, TLS and credentials."""

import itertools
import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, Field, model_validator

from birnn_bundle.quoting import shown
from birnn_service.setting_types import ENV_PREFIX, Port
from birnn_service.transports.socket_address import SocketAddress

# The origin of a page as browsers send it: scheme, host and port, or `null` if it has none of these.
ORIGIN = re.compile(r"\*|null|[a-z][a-z0-9+.-]*://[^/?#@\s]+")


class NetworkSettings(BaseModel):
    """Where the server listens, and who may call it."""

    transport: Literal["grpcio", "native", "auto"] = Field(
        "auto",
        description="Server for gRPC calls. grpcio: the server of that library. native: our own front end in C++, "
        "which takes a fifth of the CPU for each call and has no TLS. auto: native if it was built and no TLS is "
        "asked for, else grpcio.",
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
    page: bool = Field(
        True,
        description="Whether the HTTP port has a page at / that shows what is served, live charts and a box to try an "
        "encoder, and /metrics for its charts.",
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
        description="Whether to offer gRPC reflection and /openapi.json, and, where there are no tokens, /metrics on "
        "the HTTP port. By default only if --host is a loopback address.",
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

    @model_validator(mode="after")
    def _ports_differ(self) -> Self:
        ports = {"--grpc-port": self.grpc_port, "--http-port": self.http_port, "--metrics-port": self.metrics_port}
        for (one, port), (other, same) in itertools.combinations(ports.items(), 2):
            if port and port == same:
                raise ValueError(f"{one} and {other} are both {port}; each needs a port of its own")
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

    @property
    def cors(self) -> list[str]:
        """Origins of the web pages that may call."""
        return [origin.strip() for origin in self.cors_origins.split(",") if origin.strip()]

    @property
    def asks_for_tokens(self) -> bool:
        """Whether callers need a token."""
        return self.tokens is not None or self.jwks is not None

    @property
    def describes(self) -> bool:
        """Whether callers can get descriptions of the API."""
        return self.grpc_address.is_local if self.describe is None else self.describe

    @property
    def grpc_address(self) -> SocketAddress:
        """Where gRPC listens."""
        return SocketAddress(self.host, self.grpc_port, "gRPC")

    @property
    def http_address(self) -> SocketAddress | None:
        """Where HTTP listens; None where it does not."""
        return None if self.http_port is None else SocketAddress(self.host, self.http_port, "HTTP")
