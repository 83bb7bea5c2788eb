"""New versions while the server lacks what it needs to load them: calls go on, and the version comes once it can."""

import resource
from pathlib import Path

import grpc
import pytest
from click.testing import CliRunner

from birnn.openinference import inference_pb2 as pb
from birnn.openinference.inference_pb2_grpc import GRPCInferenceServiceStub
from birnn_service.commands import models as models_command
from tests.chaos.outcomes import Outcomes, attack
from tests.e2e.server_process import ServerProcess, running, until
from tests.e2e.swapping import CONTENTS, NAME, SETTINGS, Replies, callers, index, install, states
from tests.service.sources.object_server import ObjectServer, object_server

FIRST, SECOND = CONTENTS[0], CONTENTS[1]


def upload(web: ObjectServer, folder: Path) -> None:
    done = CliRunner().invoke(models_command, ["index", str(folder)])
    assert done.exit_code == 0, done.output
    web.upload(folder, "encoders/")


def order_load(server: ServerProcess) -> None:
    with grpc.insecure_channel(server.address) as channel:
        GRPCInferenceServiceStub(channel).RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name=NAME))


def go_on(replies: Replies, calls: int = 50) -> None:
    """Wait until callers have had further answers."""
    goal = replies.total + calls
    until(lambda: replies.total >= goal)


def note(outcomes: Outcomes, replies: Replies) -> None:
    outcomes.answered, outcomes.wrong, outcomes.lost = replies.total, len(replies.wrong), len(replies.lost)
    outcomes.sent = outcomes.answered + outcomes.wrong + outcomes.lost


@pytest.mark.parametrize("front_ends", [0, 2])
def test_a_store_that_stalls_holds_up_no_call(tmp_path: Path, front_ends: int) -> None:
    pytest.importorskip("obstore", reason="needs the extra `sources`")
    folder = tmp_path / "models"
    install(folder, FIRST, 1)
    arguments = [*SETTINGS, "--frontends", str(front_ends), "--cache-dir", str(tmp_path / "cache")]
    arguments += ["--source-stall-seconds", "5"]
    with object_server() as web, attack(f"a store that stalls, {front_ends} front-ends") as outcomes:
        upload(web, folder)
        with running(f"{web.url}/encoders", *arguments) as server:
            with callers(server, pause=0.0) as replies:
                go_on(replies)
                # A whole object that does not come, then no list either.
                web.stalled.add(f"encoders/{NAME}/2/weights.bin")
                install(folder, SECOND, 2)
                upload(web, folder)
                until(lambda: "--source-stall-seconds" in index(server).get((NAME, "2"), ("", ""))[1])
                assert states(server) == {"1": "READY", "2": "UNAVAILABLE"}
                go_on(replies)
                web.stalled.add("encoders/index.json")
                until(lambda: server.logged("what is served goes on"))
                go_on(replies)
                web.stalled.clear()
                until(lambda: _is_loaded(server))
                until(lambda: replies.of(2, SECOND))
            note(outcomes, replies)
            outcomes.assert_unharmed()


def _is_loaded(server: ServerProcess) -> bool:
    """Order a load, as an operator does who sees that the store is there again; whether it succeeded."""
    try:
        order_load(server)
    except grpc.RpcError:
        return False
    return True


def test_without_descriptors_to_spare_versions_wait_and_calls_go_on(tmp_path: Path) -> None:
    """Neither the files of a version can be opened then, nor the process be started that tries it."""
    models = tmp_path / "models"
    install(models, FIRST, 1)
    with attack("no descriptor to spare") as outcomes, running(models, *SETTINGS) as server:
        with callers(server, pause=0.0) as replies:
            go_on(replies)
            pid = server.process.pid
            before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
            # What is open stays so.
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (8, before[1]))
            install(models, SECOND, 2)
            until(lambda: server.logged("Too many open files"))
            go_on(replies)
            assert not replies.of(2, SECOND)
            resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
            until(lambda: _is_loaded(server))
            until(lambda: replies.of(2, SECOND))
            until(lambda: server.get("/readyz")[0] == 200)
        note(outcomes, replies)
        outcomes.assert_unharmed()
