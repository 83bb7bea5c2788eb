"""Hosts, as network namespaces on one bridge, and a name server that knows which of them serve.

All of it is private to this process, which `make rehearsal` starts in namespaces of its own: nothing outlives it.
"""

import os
import signal
import subprocess
from pathlib import Path

PREFIX = "10.77.0."
NAME = "birnn.rehearsal"
# How long an answer may be kept: the TTL that CoreDNS gives to what it knows from Kubernetes.
TTL_SECONDS = 5


def ip(*arguments: str) -> None:
    """Run a command of iproute2."""
    subprocess.run(["ip", *arguments], check=True)


class Network:
    """A bridge, hosts on it, and names for them.

    Args:
        folder: For the files of the name server.
        hosts: How many hosts there are, numbered from 1.

    Raises:
        RuntimeError: This process has no network of its own.
    """

    def __init__(self, folder: Path, hosts: int) -> None:
        if os.getpid() != 1:
            raise RuntimeError("start this with `make rehearsal`, which gives it a network of its own")
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/run"], check=True)
        ip("link", "set", "lo", "up")
        ip("link", "add", "bridge", "type", "bridge")
        ip("address", "add", f"{PREFIX}1/24", "dev", "bridge")
        ip("link", "set", "bridge", "up")
        for host in range(1, hosts + 1):
            self._add(host)
        resolver = folder / "resolv.conf"
        resolver.write_text(f"nameserver {PREFIX}1\n", encoding="utf-8")
        subprocess.run(["mount", "--bind", str(resolver), "/etc/resolv.conf"], check=True)
        self._names = folder / "hosts"
        self._names.touch()
        options = ("keep-in-foreground", "no-resolv", "no-hosts", "user=root", "bind-interfaces", "pid-file")
        place = (
            f"listen-address={PREFIX}1",
            f"local=/{NAME}/",
            f"addn-hosts={self._names}",
            f"local-ttl={TTL_SECONDS}",
        )
        self._server = subprocess.Popen(["dnsmasq", *(f"--{option}" for option in (*options, *place))])

    def name(self, hosts: list[int]) -> None:
        """Answer with these hosts from now on.

        Raises:
            RuntimeError: The name server has ended.
        """
        if self._server.poll() is not None:
            raise RuntimeError("dnsmasq has ended")
        self._names.write_text("".join(f"{address(host)} {NAME}\n" for host in hosts), encoding="utf-8")
        self._server.send_signal(signal.SIGHUP)

    def cut(self, host: int) -> None:
        """Take a host off the network: packets to and from it are lost without a word."""
        ip("link", "set", f"host{host}", "down")

    def mend(self, host: int) -> None:
        """Bring a host back."""
        ip("link", "set", f"host{host}", "up")

    def _add(self, host: int) -> None:
        space, outside = f"host{host}", f"host{host}"
        ip("netns", "add", space)
        ip("link", "add", outside, "type", "veth", "peer", "name", "eth0", "netns", space)
        ip("link", "set", outside, "master", "bridge", "up")
        ip("-n", space, "link", "set", "lo", "up")
        ip("-n", space, "address", "add", f"{address(host)}/24", "dev", "eth0")
        ip("-n", space, "link", "set", "eth0", "up")


def address(host: int) -> str:
    """The address of a host."""
    return f"{PREFIX}{host + 10}"
