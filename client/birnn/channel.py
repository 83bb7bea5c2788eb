"""How to talk to a server: retries, load balancing, keepalive and message sizes, as gRPC channel options."""

import ipaddress
import json
import re

DEFAULT_ADDRESS = "127.0.0.1:8001"

# gRPC allows five attempts at most. A reply's grpc-retry-pushback-ms replaces the back-off.
_RETRY_POLICY = {
    "maxAttempts": 5,
    "initialBackoff": "0.1s",
    "maxBackoff": "2s",
    "backoffMultiplier": 3,
    "retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED"],
}
_PORT = re.compile(r":\d+$")
_LARGEST_MESSAGE = (1 << 31) - 1


def channel_options(address: str, retries: bool = True, shared: bool = True) -> list[tuple[str, str | int]]:
    """Options for a channel to `address`.

    Args:
        address: HOST:PORT, or any gRPC target.
        retries: Repeat calls that fail with UNAVAILABLE or RESOURCE_EXHAUSTED, with back-off.
        shared: Let channels of this process with the same options share connections, as gRPC does by default.
    """
    config: dict[str, object] = {"loadBalancingConfig": [{"round_robin": {}}]}
    if retries:
        config["methodConfig"] = [
            {"name": [{"service": "birnn.v1.EncoderService"}], "retryPolicy": _RETRY_POLICY},
        ]
    return [
        ("grpc.service_config", json.dumps(config)),
        ("grpc.enable_retries", int(retries)),
        # A call is retried only while its request fits this buffer, 256 KiB by default: a few thousand sequences.
        ("grpc.per_rpc_retry_buffer_size", _LARGEST_MESSAGE),
        ("grpc.max_receive_message_length", -1),
        ("grpc.max_send_message_length", -1),
        # A connection that a firewall dropped is noticed during a call, within 80 s.
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.use_local_subchannel_pool", int(not shared)),
        # http_proxy is often set without a no_proxy for this machine.
        ("grpc.enable_http_proxy", int(not _is_loopback(address))),
    ]


def checked_address(address: str) -> str:
    """The address as it is.

    Raises:
        ValueError: It has no port, or is a URL.
    """
    if "://" in address and address.partition("://")[0] in ("http", "https", "grpc"):
        raise ValueError(f"address {address!r} must be HOST:PORT without {address.partition('://')[0]}://")
    scheme, _, rest = address.partition(":")
    if not rest or (scheme not in ("unix", "unix-abstract", "dns", "ipv4", "ipv6") and not _PORT.search(address)):
        raise ValueError(f"address {address!r} has no port; write HOST:PORT, for example {DEFAULT_ADDRESS}")
    return address


def _is_loopback(address: str) -> bool:
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
