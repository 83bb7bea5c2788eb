import pytest

from birnn_service.errors import StartupError
from tests.service.transports.http_exchange import address


def test_a_taken_port_is_said_to_be_taken() -> None:
    with address(0).listen() as taken:
        taken.listen()
        with pytest.raises(StartupError, match="--http-port"):
            address(taken.getsockname()[1]).listen()


def test_processes_of_one_server_share_a_port() -> None:
    with address(0).listen(share=True) as first:
        address(first.getsockname()[1]).listen(share=True).close()
