"""What is served changes while callers call without pause, and no call is lost or wrong."""

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import grpc
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import birnn
from birnn.openinference import inference_pb2
from birnn.openinference.inference_pb2_grpc import GRPCInferenceServiceStub
from birnn.v1 import encoder_pb2 as pb
from birnn.v1.encoder_pb2_grpc import EncoderServiceStub
from tests.chaos.hostile_bundles import seal
from tests.e2e.server_process import ServerProcess, running, until
from tests.e2e.swapping import (
    CONTENTS,
    NAME,
    SEQUENCES,
    SETTINGS,
    Replies,
    callers,
    index,
    install,
    prepare,
    states,
    vectors,
)

SMALL, FIRST, SECOND = CONTENTS
FRONT_ENDS = pytest.mark.parametrize("front_ends", [0, 2])


Encode = Callable[[pb.EncodeRequest], pb.EncodeResponse]


@contextmanager
def asked(models: Path, *arguments: str) -> Iterator[tuple[ServerProcess, Encode]]:
    """A server, and what sends it a request."""
    with running(models, *arguments) as server, grpc.insecure_channel(server.address) as channel:
        yield server, EncoderServiceStub(channel).Encode


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A models folder with one version of one encoder."""
    folder = tmp_path / "models"
    install(folder, SMALL, 1)
    return folder


def settings(front_ends: int, *more: str) -> tuple[str, ...]:
    return (*SETTINGS, "--frontends", str(front_ends), *more)


@FRONT_ENDS
def test_a_new_version_takes_over_while_calls_go_on(models: Path, front_ends: int) -> None:
    with running(models, *settings(front_ends)) as server, callers(server) as replies:
        until(lambda: replies.of(1, SMALL) > 20)
        install(models, FIRST, 2)
        until(lambda: replies.of(2, FIRST) > 20)
        assert states(server) == {"1": "READY", "2": "READY"}
        assert server.metric("birnn_encoder_loads_total", encoder=NAME, outcome="loaded") == 2
    replies.assert_unharmed()


@FRONT_ENDS
def test_only_the_latest_versions_are_served_and_the_others_are_unloaded(models: Path, front_ends: int) -> None:
    with running(models, *settings(front_ends, "--versions", "latest:1")) as server, callers(server) as replies:
        until(lambda: replies.of(1, SMALL) > 20)
        install(models, FIRST, 2)
        until(lambda: replies.of(2, FIRST) > 20)
        until(lambda: states(server) == {"1": "UNAVAILABLE", "2": "READY"})
        assert "--versions leaves it out (latest:1)" in index(server)[NAME, "1"][1]
        assert server.metric("birnn_encoder_ready", encoder=NAME) == 1
        shutil.rmtree(models / NAME / "2")
        until(lambda: states(server) == {"1": "READY"})
    replies.assert_unharmed()
    assert replies.of(1, SMALL)


def _has_answered(replies: Replies, version: int, content: Path, calls: int) -> bool:
    """Whether a version with a content has answered more than a number of calls."""
    return replies.of(version, content) > calls


@FRONT_ENDS
def test_a_version_is_replaced_in_place_and_every_reply_is_of_one_content(models: Path, front_ends: int) -> None:
    with running(models, *settings(front_ends, "--cache-mib", "16")) as server, callers(server) as replies:
        for content in (FIRST, SMALL, SECOND, FIRST):
            before = replies.of(1, content)
            install(models, content, 1)
            until(partial(_has_answered, replies, 1, content, before + 20))
        until(lambda: states(server) == {"1": "READY"})
    replies.assert_unharmed()


@FRONT_ENDS
def test_orders_unload_and_load(models: Path, front_ends: int) -> None:
    install(models, FIRST, 2)
    with asked(models, *settings(front_ends, "--models-poll", "0")) as (server, encode):
        request = pb.EncodeRequest(encoder=NAME, sequences=SEQUENCES)
        assert encode(request).version == "2"
        assert birnn_models(server, "unload", f"{NAME}@2") == (0, f"{NAME}@2 is unloaded\n")
        for _ in range(20):
            assert encode(request).embeddings == vectors(SMALL)
        until(lambda: states(server) == {"1": "READY", "2": "UNAVAILABLE"})
        assert birnn_models(server, "unload", NAME)[0] == 0
        with pytest.raises(grpc.RpcError, match="unloaded by an order"):
            encode(request)
        assert birnn_models(server, "status", NAME)[1].count("UNAVAILABLE") == 2
        assert birnn_models(server, "unload", NAME) == (
            1,
            f"Error: nothing of '{NAME}' is served (at {server.address})\n",
        )
        assert birnn_models(server, "load", NAME)[0] == 0
        for _ in range(20):
            assert encode(request).embeddings == vectors(FIRST)
        install(models, SECOND, 3)
        assert birnn_models(server, "load", NAME)[0] == 0
        assert encode(request).embeddings == vectors(SECOND)
        status, said = birnn_models(server, "load", "unknown")
        assert (status, "no 'unknown' in the source" in said) == (1, True)
        tamper(models / NAME / "3")
        assert "weights.bin was changed" in birnn_models(server, "load", f"{NAME}@3")[1]
        assert encode(request).embeddings == vectors(SECOND)


def test_an_order_is_carried_out_even_if_its_caller_gives_up_meanwhile(models: Path) -> None:
    with (
        running(models, *settings(0, "--models-poll", "0")) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        install(models, FIRST, 2)
        load = GRPCInferenceServiceStub(channel).RepositoryModelLoad
        order = load.future(inference_pb2.RepositoryModelLoadRequest(model_name=NAME))
        until(lambda: states(server).get("2") == "LOADING")
        order.cancel()
        until(lambda: states(server) == {"1": "READY", "2": "READY"})
        reply = EncoderServiceStub(channel).Encode(pb.EncodeRequest(encoder=NAME, sequences=SEQUENCES))
        assert reply.embeddings == vectors(FIRST)


def birnn_models(server: ServerProcess, *arguments: str) -> tuple[int, str]:
    """Exit status and output of `birnn models`."""
    from click.testing import CliRunner

    from birnn.cli.main import main

    done = CliRunner().invoke(main, ["models", *arguments, "--address", server.address])
    return done.exit_code, done.output


def tamper(folder: Path) -> None:
    """Change a byte of the weights, in place."""
    with (folder / "weights.bin").open("r+b") as file:
        file.seek(1000)
        (byte,) = file.read(1)
        file.seek(1000)
        file.write(bytes([byte ^ 1]))


@FRONT_ENDS
def test_a_bad_version_takes_no_calls_says_why_and_is_tried_again_when_it_changes(
    models: Path, front_ends: int
) -> None:
    with running(models, *settings(front_ends)) as server, callers(server) as replies:
        tamper(prepared := prepare(models, FIRST, NAME, 2))
        prepared.rename(models / NAME / "2")
        until(lambda: "weights.bin was changed" in index(server).get((NAME, "2"), ("", ""))[1])
        assert states(server) == {"1": "READY", "2": "UNAVAILABLE"}
        assert server.metric("birnn_encoder_ready", encoder=NAME, version="2") == 0
        assert server.metric("birnn_encoder_loads_total", encoder=NAME, outcome="refused") == 1
        assert server.logged(f"encoder {NAME}/2 is not served: ") == 1
        assert server.get("/readyz")[0] == 200
        assert birnn_models(server, "status", NAME)[1].splitlines()[1].startswith(f"{NAME}/2\tUNAVAILABLE\tweights.bin")
        # The files of a version that is served become bad; what was loaded goes on.
        tamper(models / NAME / "1")
        until(lambda: "newer files are not served" in index(server)[NAME, "1"][1])
        assert states(server)["1"] == "READY"
        tamper(models / NAME / "2")
        until(lambda: replies.of(2, FIRST) > 20)
    replies.assert_unharmed()


def test_a_version_that_is_copied_slowly_is_never_loaded_half_nor_given_up(models: Path) -> None:
    with running(models, *settings(0)) as server, callers(server) as replies:
        source, target = prepare(models, FIRST, NAME, 2), models / NAME / "2"
        target.mkdir()
        shutil.copy(source / "manifest.json", target)
        # Half of it lies there for long: it is tried, found incomplete, and tried again once there is more.
        until(lambda: states(server).get("2") == "UNAVAILABLE")
        for path in sorted(source.iterdir()):
            with path.open("rb") as read, (target / path.name).open("wb") as write:
                while piece := read.read(1 << 20):
                    write.write(piece)
                    write.flush()
        until(lambda: replies.of(2, FIRST) > 20)
    replies.assert_unharmed()


def greedy(folder: Path) -> None:
    """So many golden vectors that they take more memory than a server allows."""
    arrays = dict(load_file(folder / "golden.safetensors"))
    manifest = json.loads((folder / "manifest.json").read_text())
    count, length = 500, 250
    arrays["ids"] = np.tile(np.full(length, 5, dtype=arrays["ids"].dtype), count)
    offsets = np.arange(count + 1, dtype=arrays["offsets"].dtype) * length
    arrays["offsets"] = offsets
    arrays["pooled"] = np.zeros((count, manifest["dimension"]), dtype=arrays["pooled"].dtype)
    arrays["tokens"] = np.zeros((count * length, manifest["token_dimension"]), dtype=arrays["tokens"].dtype)
    save_file(arrays, folder / "golden.safetensors")
    seal(folder, name=NAME)


def children(server: ServerProcess) -> Iterator[int]:
    """Processes in which versions are tried."""
    for child in processes_of(server):
        with suppress(OSError):
            if b"birnn_service.repository.prove" in Path(f"/proc/{child}/cmdline").read_bytes():
                yield child


def strike(server: ServerProcess, number: signal.Signals) -> None:
    """Send a signal to the process that tries a version, as soon as there is one."""
    until(lambda: list(children(server)))
    for child in children(server):
        os.kill(child, number)


def processes_of(server: ServerProcess) -> list[int]:
    """All that its main thread has started and that run."""
    pid = server.process.pid
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@FRONT_ENDS
def test_a_version_that_hangs_or_crashes_its_loader_costs_nothing(models: Path, front_ends: int) -> None:
    with running(models, *settings(front_ends, "--load-seconds", "15")) as server, callers(server) as replies:
        prepared = prepare(models, SMALL, NAME, 2)
        prepared.rename(models / NAME / "2")
        until(lambda: replies.of(2, SMALL) > 20)
        # A loader that is stopped is one that hangs.
        install(models, FIRST, 3)
        strike(server, signal.SIGSTOP)
        until(lambda: states(server).get("3") in ("READY", "UNAVAILABLE"))
        assert "--load-seconds" in index(server)[NAME, "3"][1]
        install(models, FIRST, 4)
        strike(server, signal.SIGSEGV)
        until(lambda: states(server).get("4") in ("READY", "UNAVAILABLE"))
        assert "SIGSEGV" in index(server)[NAME, "4"][1]
        assert not list(children(server))
        assert states(server) == {"1": "READY", "2": "READY", "3": "UNAVAILABLE", "4": "UNAVAILABLE"}
        assert birnn_models(server, "load", f"{NAME}@4")[0] == 0
        until(lambda: replies.of(4, FIRST) > 20)
    replies.assert_unharmed()


def test_a_version_that_takes_too_much_memory_is_refused(models: Path) -> None:
    with running(models, *settings(0, "--load-memory-mib", "256")) as server, callers(server) as replies:
        greedy(prepared := prepare(models, SMALL, NAME, 2))
        prepared.rename(models / NAME / "2")
        until(lambda: states(server).get("2") == "UNAVAILABLE")
        assert "--load-memory-mib" in index(server)[NAME, "2"][1]
    replies.assert_unharmed()


@FRONT_ENDS
def test_an_alias_is_followed(models: Path, front_ends: int) -> None:
    install(models, FIRST, 2)
    with asked(models, *settings(front_ends, "--versions", "latest:1")) as (server, encode):
        until(lambda: states(server) == {"1": "UNAVAILABLE", "2": "READY"})
        alias(models, "stable", 1)
        until(lambda: states(server) == {"1": "READY", "2": "READY"})
        with callers(server, version="stable") as replies:
            until(lambda: replies.of(1, SMALL) > 20)
            alias(models, "stable", 2)
            until(lambda: replies.of(2, FIRST) > 20)
        replies.assert_unharmed()
        assert encode(pb.EncodeRequest(encoder=f"{NAME}@stable", sequences=SEQUENCES)).version == "2"
        with birnn.Client(server.address) as client:
            assert client.encoder(f"{NAME}@stable").version == client.encoder(NAME, version="stable").version == "2"
            assert client.encode([text.decode() for text in SEQUENCES], f"{NAME}@stable").tobytes() == vectors(FIRST)
        until(lambda: states(server) == {"1": "UNAVAILABLE", "2": "READY"})
        (models / NAME / "aliases.json").write_text('{"stable": 7}')
        request = pb.EncodeRequest(encoder=NAME, version="stable", sequences=SEQUENCES)
        until(lambda: "is version 7" in refusal(encode, request))
        assert "has no version" in refusal(encode, request)


def refusal(encode: Encode, request: pb.EncodeRequest) -> str:
    """What the server says to a call that it refuses; empty where it does not."""
    try:
        encode(request)
    except grpc.RpcError as error:
        return str(error)
    return ""


def alias(models: Path, name: str, version: int) -> None:
    """`birnn models alias`."""
    from click.testing import CliRunner

    from birnn.cli.main import main

    done = CliRunner().invoke(main, ["models", "alias", NAME, name, str(version), "--models", str(models)])
    assert done.exit_code == 0, done.output


def test_an_unmounted_volume_unloads_nothing(models: Path) -> None:
    with running(models, *settings(0)) as server, callers(server) as replies:
        until(lambda: replies.of(1, SMALL) > 20)
        models.rename(models.with_name("away"))
        until(lambda: server.logged("cannot look for encoders"))
        before = replies.total
        until(lambda: replies.total > before + 50)
        models.with_name("away").rename(models)
        install(models, FIRST, 2)
        until(lambda: replies.of(2, FIRST) > 20)
        assert server.logged("cannot look for encoders") == 1
    replies.assert_unharmed()


@pytest.mark.parametrize(("readiness", "ready"), [("serving", 200), ("strict", 503)])
def test_a_broken_version_beside_a_good_one_at_the_start(models: Path, readiness: str, ready: int) -> None:
    tamper(install(models, FIRST, 2))
    with running(models, *settings(0, "--readiness", readiness)) as server:
        assert server.get("/readyz")[0] == ready
        tamper(models / NAME / "2")
        until(lambda: states(server) == {"1": "READY", "2": "READY"})
        until(lambda: server.get("/readyz")[0] == 200)
        # A name that is broken from its first day keeps nobody waiting; under `strict` it does.
        tamper(install(models, FIRST, 1, "other"))
        until(lambda: states(server, "other") == {"1": "UNAVAILABLE"})
        assert server.get("/readyz")[0] == ready


def test_a_server_that_takes_no_orders_says_how_it_would(models: Path) -> None:
    with running(models, *settings(0, "--admin", "false")) as server:
        status, said = birnn_models(server, "unload", NAME)
        assert (status, "--admin true" in said) == (1, True)
        assert states(server) == {"1": "READY"}


def test_a_front_end_that_starts_again_knows_what_is_served_now(models: Path) -> None:
    with running(models, *settings(2)) as server:
        install(models, FIRST, 2)
        until(lambda: states(server) == {"1": "READY", "2": "READY"})
        for front_end in processes_of(server):
            os.kill(front_end, signal.SIGKILL)
        until(lambda: server.metric("birnn_frontend_restarts_total") >= 2)
        until(lambda: server.metric("birnn_frontends") == 2)
        with callers(server, count=8) as replies:
            until(lambda: replies.of(2, FIRST) > 50)
            install(models, SECOND, 3)
            until(lambda: replies.of(3, SECOND) > 50)
        replies.assert_unharmed()
