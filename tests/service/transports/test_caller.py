import pytest

from birnn_service.transports.caller import caller_of


@pytest.mark.parametrize(
    ("peer", "caller"),
    [
        ("ipv4:192.0.2.1:40000", "ipv4:192.0.2.1"),
        ("ipv4:192.0.2.1:40001", "ipv4:192.0.2.1"),
        ("ipv6:%5B2001:db8::1%5D:40000", "ipv6:2001:db8::/64"),
        ("ipv6:[2001:db8::ffff:1]:40000", "ipv6:2001:db8::/64"),
        ("ipv6:%5Bfe80::1%25eth0%5D:40000", "ipv6:fe80::/64"),
        ("ipv6:%5B::ffff:192.0.2.1%5D:40000", "ipv4:192.0.2.1"),
        ("unix:", "unix"),
        ("unix:/run/birnn.sock", "unix"),
    ],
)
def test_a_caller_is_a_host_or_an_ipv6_network_whatever_the_port(peer: str, caller: str) -> None:
    assert caller_of(peer) == caller
