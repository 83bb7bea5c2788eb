"""What happens to the server of a soak, one thing after the other. Each fault waits until it has taken effect."""

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import grpc

from birnn.v1 import encoder_pb2 as pb
from tests.certificates import shown
from tests.chaos.hostile_bundles import seal
from tests.chaos.processes import children
from tests.chaos.soak.scene import Scene, change_tokens
from tests.chaos.soak.world import NAME, VERSIONS
from tests.chaos.test_streams import mutated
from tests.e2e.molecules import molecules
from tests.e2e.server_process import until

Fault = Callable[[Scene], None]
# Of a version that is never good.
BAD = 9


def version_swapped(scene: Scene) -> None:
    """Another version appears and the one before goes, while calls are under way."""
    before, after = scene.served, scene.served % len(VERSIONS) + 1
    scene.world.publish(after)
    until(lambda: scene.ready(after) == 1)
    scene.go_on()
    scene.world.withdraw(before)
    until(lambda: scene.ready(before) is None)
    scene.served = after


def version_replaced_in_place(scene: Scene) -> None:
    """The files of a version are replaced by others of the same vectors."""
    loads = scene.server.logged(f"encoder {NAME}/{scene.served}:")
    scene.world.publish(scene.served, lambda folder: seal(folder, description=f"replaced {loads} times"))
    until(lambda: scene.server.logged(f"encoder {NAME}/{scene.served}:") > loads)
    scene.go_on()


def bundle_half_copied(scene: Scene) -> None:
    """A version is copied file by file, and taken away before it is complete."""
    source, folder = scene.world.stash / NAME / str(scene.served), scene.world.served(BAD)
    folder.mkdir()
    for name in ("manifest.json", "tokenizer.json", "pooled.onnx"):
        shutil.copy(source / name, folder / name)
    scene.go_on(2000)
    assert scene.ready(BAD) != 1
    shutil.rmtree(folder)
    until(lambda: scene.ready(BAD) is None)


def bundle_tampered(scene: Scene) -> None:
    """A version appears in which one byte of the weights differs from its digest."""

    def tamper(folder: Path) -> None:
        content = bytearray((folder / "weights.bin").read_bytes())
        content[len(content) // 2] ^= 1
        (folder / "weights.bin").write_bytes(content)

    _refused(scene, tamper)


def bundle_wrong(scene: Scene) -> None:
    """A version appears whose digests are right, and whose weights do not give its golden vectors."""

    def weaken(folder: Path) -> None:
        content = bytearray((folder / "weights.bin").read_bytes())
        content[: len(content) // 2] = bytes(len(content) // 2)
        (folder / "weights.bin").write_bytes(content)
        seal(folder, version=BAD)

    _refused(scene, weaken)


def _refused(scene: Scene, spoil: Callable[[Path], None]) -> None:
    """Have a bad version appear; it is refused, and then goes."""
    folder = scene.world.models / NAME / f".{BAD}"
    shutil.copytree(scene.world.stash / NAME / str(scene.served), folder)
    spoil(folder)
    folder.rename(scene.world.served(BAD))
    until(lambda: scene.ready(BAD) == 0)
    scene.go_on()
    shutil.rmtree(scene.world.served(BAD))
    until(lambda: scene.ready(BAD) is None)


def certificate_rotated(scene: Scene) -> None:
    """The server's certificate is replaced."""
    world, port = scene.world, int(scene.server.address.rpartition(":")[2])
    before = shown(port, world.authority.cert)
    world.mount.swap(world.authority.issue(f"server-{scene.seed}"))
    until(lambda: shown(port, world.authority.cert) != before)
    scene.go_on()


def token_revoked(scene: Scene) -> None:
    """A token is added, used and removed: its calls are answered, then refused."""
    name = f"guest-{scene.seed}"
    with scene.group(change_tokens(scene.world, "add", name), {"singles": 2, "rest": 1}) as group:
        until(lambda: group.tally.calls["answered"] >= 50)
        change_tokens(scene.world, "remove", name)
        until(lambda: group.tally.calls["refused"] >= 10)
        answered = group.tally.calls["answered"]
        until(lambda: group.tally.calls["refused"] >= 20)
        assert group.tally.calls["answered"] == answered, "a revoked token was still good"


def tenant_storm(scene: Scene) -> None:
    """Another tenant sends all that it can."""
    token = change_tokens(scene.world, "add", f"greedy-{scene.seed}")
    with scene.group(token, {"singles": 64, "large": 8, "streams": 4, "rest": 4}) as group:
        until(lambda: group.tally.calls.total() >= 2000)


def callers_killed(scene: Scene) -> None:
    """A process of callers is killed in the middle of its calls."""
    token = change_tokens(scene.world, "add", f"killed-{scene.seed}")
    with scene.group(token, {"singles": 16, "large": 4, "streams": 2, "rest": 4}) as group:
        until(lambda: group.tally.calls["answered"] >= 200)
        group.kill()


def callers_stopped(scene: Scene) -> None:
    """A process of callers stands still for a while, with replies on their way to it, and is killed."""
    token = change_tokens(scene.world, "add", f"stopped-{scene.seed}")
    with scene.group(token, {"large": 16, "streams": 4}) as group:
        until(lambda: group.tally.calls["answered"] >= 50)
        group.process.send_signal(signal.SIGSTOP)
        scene.go_on(1000)
        group.kill()


def messages_mutated(scene: Scene) -> None:
    """Requests of which half are damaged: each is answered or refused, none is a fault of the server."""
    source, strings = random.Random(scene.seed), molecules(200)
    with _raw_encode(scene) as encode:
        for _ in range(300):
            sequences = [text.encode() for text in source.sample(strings, 3)]
            message = pb.EncodeRequest(encoder=NAME, sequences=sequences).SerializeToString()
            code = encode(mutated(source, message))
            assert code not in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN), message


@contextmanager
def _raw_encode(scene: Scene) -> Iterator[Callable[[bytes], grpc.StatusCode]]:
    """Encodes messages as they are, and counts and returns what becomes of them."""
    metadata = (("authorization", f"Bearer {scene.admin}"),)
    options = [("grpc.max_send_message_length", -1)]
    if scene.world.tls:
        credentials = grpc.ssl_channel_credentials(scene.world.authority.cert.read_bytes())
        opened = grpc.secure_channel(scene.server.address, credentials, options)
    else:
        opened = grpc.insecure_channel(scene.server.address, options)
    with opened as channel:
        method = channel.unary_unary("/birnn.v1.EncoderService/Encode")

        def encode(message: bytes) -> grpc.StatusCode:
            call = method.future(message, metadata=metadata, timeout=60)
            code: grpc.StatusCode = call.code()
            scene.others.calls["answered" if code is grpc.StatusCode.OK else "refused"] += 1
            return code

        yield encode


def connections_flooded(scene: Scene) -> None:
    """Hundreds of connections that send nothing, or junk where TLS or HTTP begins."""
    ports = [int(where.rpartition(":")[2]) for where in (scene.server.address, scene.server.rest, scene.server.http)]
    opened = [socket.create_connection(("127.0.0.1", port), timeout=60) for port in ports for _ in range(100)]
    for number, connection in enumerate(opened):
        if number % 2:
            connection.sendall(os.urandom(64))
    scene.go_on()
    for connection in opened:
        connection.close()


def machine_busy(scene: Scene) -> None:
    """Other processes take the cores."""
    code = "while True: pass"
    busy = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2 * (os.cpu_count() or 1))]
    try:
        scene.go_on(500)
    finally:
        for process in busy:
            process.kill()
            process.wait()


def server_stopped(scene: Scene) -> None:
    """The server's process stands still for a moment, as on a machine that is moved."""
    scene.server.process.send_signal(signal.SIGSTOP)
    try:
        # Nobody is answered now, so no state tells how long that lasts.
        subprocess.run(["sleep", "1"], check=True)
    finally:
        scene.server.process.send_signal(signal.SIGCONT)
    scene.go_on()


def front_end_killed(scene: Scene) -> None:
    """A front-end is killed in the middle of its calls, and started again."""
    restarts = scene.server.metric("birnn_frontend_restarts_total")
    os.kill(random.Random(scene.seed).choice(_front_ends(scene)), signal.SIGKILL)
    until(lambda: scene.server.metric("birnn_frontend_restarts_total") > restarts)
    until(lambda: len(_front_ends(scene)) == scene.frontends)
    scene.go_on()


def _front_ends(scene: Scene) -> list[int]:
    """Processes that take calls."""
    found = []
    for pid in children(scene.server):
        with suppress(FileNotFoundError, ProcessLookupError):
            if b"birnn_service.frontends.process" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
    return found


def requests_too_large(scene: Scene) -> None:
    """Requests beyond the limits, and for what is not served."""
    refusals = [
        (grpc.StatusCode.RESOURCE_EXHAUSTED, pb.EncodeRequest(encoder=NAME, sequences=[b"C" * (20 << 20)])),
        (grpc.StatusCode.INVALID_ARGUMENT, pb.EncodeRequest(encoder=NAME, sequences=[b"C"] * 20_000)),
        (grpc.StatusCode.NOT_FOUND, pb.EncodeRequest(encoder="x" * 10_000, sequences=[b"C"])),
        (grpc.StatusCode.NOT_FOUND, pb.EncodeRequest(encoder=NAME, version=str(BAD), sequences=[b"C"])),
    ]
    with _raw_encode(scene) as encode:
        for code, request in refusals:
            assert encode(request.SerializeToString()) is code


def token_file_broken(scene: Scene) -> None:
    """The file of tokens is damaged for a while: those read before stay good."""
    content = scene.world.tokens.read_bytes()
    problems = scene.server.logged("the tokens read earlier stay valid")
    scene.world.tokens.write_bytes(content[: len(content) // 2] + b"{")
    until(lambda: scene.server.logged("the tokens read earlier stay valid") > problems)
    scene.go_on()
    scene.world.tokens.write_bytes(content)


FAULTS: list[Fault] = [
    version_swapped,
    tenant_storm,
    version_swapped,
    messages_mutated,
    bundle_tampered,
    callers_killed,
    token_revoked,
    version_replaced_in_place,
    connections_flooded,
    bundle_half_copied,
    machine_busy,
    version_swapped,
    callers_stopped,
    bundle_wrong,
    server_stopped,
    requests_too_large,
    token_file_broken,
]
WITH_TLS: list[Fault] = [certificate_rotated]
WITH_FRONT_ENDS: list[Fault] = [front_end_killed]
