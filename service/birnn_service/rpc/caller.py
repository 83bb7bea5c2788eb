"""Who calls: the address of a connection, by which callers share the device."""

import ipaddress
from functools import lru_cache
from urllib.parse import unquote

# Hosts choose the rest of an IPv6 address themselves: whoever has one has 2^64 of them.
IPV6_NETWORK = 64


@lru_cache(maxsize=4096)
def caller_of(peer: str) -> str:
    """The caller behind a peer as gRPC names it, such as `ipv4:192.0.2.1:40000` or `ipv6:%5B2001:db8::1%5D:40000`.

    All ports of a host are one caller, and so are all IPv6 addresses of one network of 64 bits. Every other kind of
    peer, such as a Unix socket, is one caller.

    Returns:
        The kind of address and the host or network: `ipv4:192.0.2.1`, `ipv6:2001:db8::/64`, `unix`.
    """
    kind, _, address = unquote(peer).partition(":")
    if kind == "ipv4":
        return f"{kind}:{address.rpartition(':')[0]}"
    if kind != "ipv6":
        return kind
    host = ipaddress.IPv6Address(address.rpartition(":")[0].strip("[]").partition("%")[0])
    if host.ipv4_mapped is not None:
        return f"ipv4:{host.ipv4_mapped}"
    return f"{kind}:{ipaddress.IPv6Network((host, IPV6_NETWORK), strict=False)}"
