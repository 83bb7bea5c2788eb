"""Who calls: the address of a connection, by which callers share the device."""

import ipaddress
from functools import lru_cache
from urllib.parse import unquote

# A host chooses the rest of its IPv6 address itself, so it has 2^64 of them.
IPV6_NETWORK = 64

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@lru_cache(maxsize=4096)
def caller_of(peer: str) -> str:
    """The caller behind a peer as gRPC names it, such as `ipv4:192.0.2.1:40000` or `ipv6:%5B2001:db8::1%5D:40000`.

    All ports of a host are one caller, and so are all IPv6 addresses of one network of 64 bits. Every other kind of
    peer, such as a Unix socket, is one caller.

    Returns:
        The kind of address and the host or network: `ipv4:192.0.2.1`, `ipv6:2001:db8::/64`, `unix`.
    """
    found = address_of(peer)
    if found is None:
        return peer.partition(":")[0]
    host, _ = found
    if isinstance(host, ipaddress.IPv4Address):
        return f"ipv4:{host}"
    return f"ipv6:{ipaddress.IPv6Network((host, IPV6_NETWORK), strict=False)}"


def address_of(peer: str) -> tuple[Address, int] | None:
    """Host and port of a peer; None for every other kind of peer."""
    kind, _, address = unquote(peer).partition(":")
    if kind not in ("ipv4", "ipv6"):
        return None
    host, _, port = address.rpartition(":")
    return read_address(host), int(port)


def read_address(host: str) -> Address:
    """An address without its zone, and as IPv4 where it is an IPv4 address within IPv6."""
    address = ipaddress.ip_address(host.strip("[]").partition("%")[0])
    return (isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped) or address
