"""`birnn encode --file` and a real server."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import birnn
from birnn.cli.main import main
from tests.e2e.molecules import molecules
from tests.e2e.server_process import MODELS, ServerProcess, free_port, running

SMALL = "smiles-small"


def test_a_restarted_server_costs_no_row(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / SMALL).symlink_to(MODELS / SMALL)
    port, out, strings = free_port(), tmp_path / "v.npy", molecules(400)
    arguments = (tmp_path / "models", "--grpc-port", str(port))
    command = [sys.executable, "-m", "birnn", "encode", "--file", "-", "--out", str(out), "--encoder", SMALL]
    command += ["--batch-size", "16", "--address", f"127.0.0.1:{port}"]
    with running(*arguments) as server:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write("".join(f"{string}\n" for string in strings[:200]))
        process.stdin.flush()
        while server.metric("birnn_sequences_total") == 0:
            assert process.poll() is None, process.stderr.read()
        server.process.kill()
        server.process.wait()
    process.stdin.write("".join(f"{string}\n" for string in strings[200:]))
    process.stdin.close()
    told = process.stderr.readline()
    assert "calls are repeated for up to 300 s" in told
    with running(*arguments) as server:
        rest = process.stderr.read()
        assert process.wait() == 0, rest
        assert "answers again after" in rest
        assert "400 sequences, 0 failed" in rest
        with birnn.Client(server.address) as client:
            expected = client.encode(strings, SMALL)
    np.testing.assert_allclose(np.load(out), expected, atol=1e-5)
    assert sorted(os.listdir(tmp_path)) == ["models", "v.npy"]


def test_tokens_that_the_encoder_does_not_know_are_told_of(server: ServerProcess, tmp_path: Path) -> None:
    file = tmp_path / "unknown.smi"
    file.write_text("[13CH4]\n[N−]\n[Xx]\nCCO\n", encoding="utf-8")
    command = ["encode", "--address", server.address, "--encoder", SMALL, "--file", str(file)]
    done = CliRunner().invoke(main, [*command, "--out", str(tmp_path / "v.npy")])
    assert done.exit_code == 0
    assert "line 2: 1 unknown token: '[N−]'" in done.stderr
    assert "warning: 3 sequences with tokens that the encoder does not know" in done.stderr
    assert CliRunner().invoke(main, [*command, "--strict"]).exit_code == 1


def test_the_port_of_metrics_is_recognized(server: ServerProcess) -> None:
    with (
        birnn.Client(server.http.removeprefix("http://")) as client,
        pytest.raises(birnn.ServerUnreachableError, match="is it the HTTP port"),
    ):
        client.encode(["C"], SMALL)
