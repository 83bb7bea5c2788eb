"""How to talk to a server: load balancing, reconnecting, keepalive and message sizes, as gRPC channel options."""

import ipaddress
import json
import re

DEFAULT_ADDRESS = "127.0.0.1:8001"

_PORT = re.compile(r":([0-9]+)$")
_LARGEST_PORT = 65_535


def channel_options(address: str, shared: bool = True) -> list[tuple[str, str | int]]:
    """Options for a channel to `address`.

    Args:
        address: HOST:PORT, or any gRPC target.
        shared: Let channels of this process with the same options share connections, as gRPC does by default.
    """
    return [
        ("grpc.service_config", json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})),
        # gRPC gives up after five attempts and keeps a copy of each request; see birnn.retries.
        ("grpc.enable_retries", 0),
        # A server that comes back is found within about two seconds; by default gRPC waits for up to two minutes.
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", 2_000),
        # How long one attempt to connect may take.
        ("grpc.min_reconnect_backoff_ms", 5_000),
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
        ValueError: It has no port or one that cannot be, or is a URL.
    """
    if "://" in address and address.partition("://")[0] in ("http", "https", "grpc"):
        raise ValueError(f"address {address!r} must be HOST:PORT without {address.partition('://')[0]}://")
    scheme, _, rest = address.partition(":")
    if not rest or (scheme not in ("unix", "unix-abstract", "dns", "ipv4", "ipv6") and not _PORT.search(address)):
        raise ValueError(f"address {address!r} has no port; write HOST:PORT, for example {DEFAULT_ADDRESS}")
    for part in address.split(","):
        port = _PORT.search(part)
        if port and not scheme.startswith("unix") and not 1 <= int(port[1]) <= _LARGEST_PORT:
            raise ValueError(f"address {address!r}: a port is a number from 1 to {_LARGEST_PORT}, not {port[1]}")
    return address


def _is_loopback(address: str) -> bool:
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
