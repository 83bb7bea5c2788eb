import socket
import sys

import pytest

from birnn_service.errors import StartupError
from birnn_service.transports.shared_port import SharedPort
from birnn_service.transports.socket_address import SocketAddress

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="front-ends need Linux")


def port(number: int) -> SharedPort:
    return SharedPort(SocketAddress("127.0.0.1", number, "gRPC"))


def listener(number: int, *, share: bool) -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(share))
    sock.bind(("127.0.0.1", number))
    sock.listen()
    return sock


def test_two_servers_that_start_at_the_same_time_do_not_get_the_same_port() -> None:
    with port(0) as first, pytest.raises(StartupError, match=r"cannot listen.*--grpc-port"):
        port(first.number)
    port(first.number).close()


@pytest.mark.parametrize("share", [False, True])
def test_a_port_on_which_somebody_listens_is_refused_even_if_they_would_share_it(share: bool) -> None:
    with listener(0, share=share) as taken, pytest.raises(StartupError, match="cannot listen"):
        port(taken.getsockname()[1])


def test_front_ends_can_listen_on_it_and_once_they_do_nobody_who_does_not_share() -> None:
    with port(0) as held, listener(held.number, share=True), listener(held.number, share=True):
        with pytest.raises(OSError, match="in use"):
            listener(held.number, share=False)
        with pytest.raises(StartupError, match="cannot listen"):
            port(held.number)


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(StartupError, match="cannot listen"):
        SharedPort(SocketAddress("192.0.2.1", 0, "gRPC"))
