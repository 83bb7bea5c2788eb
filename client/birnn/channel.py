"""gRPC channel options (load balancing, reconnection, keepalive, message sizes) and the check of an address."""

import ipaddress
import json
import re

DEFAULT_ADDRESS = "127.0.0.1:8001"

# A name or IPv4 address, or an IPv6 address in brackets.
_HOST = re.compile(r"[^\s:/,\[\]]+|\[[0-9A-Fa-f]*:[0-9A-Fa-f:.]*(%[^\s\[\]]+)?\]")
_PORT = re.compile(r"[0-9]+")
_LARGEST_PORT = 65_535
_LONGEST_PORT = 5


def channel_options(address: str, shared: bool = True) -> list[tuple[str, str | int]]:
    """Return the options for a channel to `address`.

    Args:
        address: HOST:PORT, or any gRPC target.
        shared: Whether channels of this process with the same options share connections, as gRPC does by default.
    """
    return [
        ("grpc.service_config", json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})),
        # gRPC gives up after five attempts and keeps a copy of each request. See birnn.retries instead.
        ("grpc.enable_retries", 0),
        # The client reconnects within about two seconds of a restart. By default, gRPC waits for up to two minutes.
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", 2_000),
        # The maximum duration of one attempt to connect.
        ("grpc.min_reconnect_backoff_ms", 5_000),
        ("grpc.max_receive_message_length", -1),
        ("grpc.max_send_message_length", -1),
        # If a host is gone, the client notices 10 s after it sent something, because TCP also waits that long. If a
        # firewall dropped the connection while a call waits for its reply, the client notices within 70 s.
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.use_local_subchannel_pool", int(not shared)),
        # http_proxy is often set without a no_proxy for the local machine.
        ("grpc.enable_http_proxy", int(not _is_loopback(address))),
    ]


def checked_address(address: str) -> str:
    """Return the address unchanged if it is valid.

    Raises:
        ValueError: The address is invalid. The message says what to write instead.
    """
    scheme, _, rest = address.partition(":")
    if rest.startswith("//") and scheme in ("http", "https", "grpc"):
        raise ValueError(f"address {address!r} must be HOST:PORT without {scheme}://")
    if scheme in ("unix", "unix-abstract") and rest:
        return address
    if scheme in ("ipv4", "ipv6"):
        endpoints = rest.split(",")
    else:
        endpoints = [rest.rpartition("/")[2] if scheme == "dns" else address]
    for endpoint in endpoints:
        if problem := _problem(endpoint):
            raise ValueError(f"address {address!r}: {problem}")
    return address


def _problem(endpoint: str) -> str | None:
    """Return what is wrong with HOST:PORT, or None if it is valid."""
    host, _, port = endpoint.rpartition(":")
    if ":" in host and not {"[", ","}.intersection(host):
        return "write an IPv6 address in brackets, for example [::1]:8001"
    if not _HOST.fullmatch(host) or not _PORT.fullmatch(port):
        return f"write HOST:PORT without spaces, PORT in digits, for example {DEFAULT_ADDRESS}"
    if len(port) > _LONGEST_PORT or not 1 <= int(port) <= _LARGEST_PORT:
        return f"a port is a number from 1 to {_LARGEST_PORT}, not {port}"
    return None


def _is_loopback(address: str) -> bool:
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
