import socket
from urllib.parse import quote

import pytest

from birnn_service.transports.departures import end_connection
from tests.service.transports.clock import PATIENCE_SECONDS


@pytest.mark.parametrize(("family", "host", "prefix"), [("AF_INET", "127.0.0.1", "ipv4"), ("AF_INET6", "::1", "ipv6")])
def test_one_connection_is_ended_and_no_other(family: str, host: str, prefix: str) -> None:
    try:
        listener = socket.create_server((host, 0), family=getattr(socket, family))
    except OSError:
        pytest.skip(f"this machine has no {host}")
    address = listener.getsockname()[:2]
    with (
        listener,
        socket.create_connection(address, timeout=PATIENCE_SECONDS) as first,
        listener.accept()[0],
        socket.create_connection(address, timeout=PATIENCE_SECONDS) as second,
        listener.accept()[0] as second_here,
    ):
        port = first.getsockname()[1]
        peer = f"{prefix}:{quote(f'[{host}]') if ':' in host else host}:{port}"
        assert end_connection(peer)
        assert first.recv(1) == b""
        second_here.sendall(b"x")
        assert second.recv(1) == b"x"


@pytest.mark.parametrize("peer", ["ipv4:127.0.0.1:1", "unix:/tmp/somewhere", "unix:", "nonsense"])
def test_a_peer_without_a_connection_is_not_found(peer: str) -> None:
    assert not end_connection(peer)
