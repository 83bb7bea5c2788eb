"""What is said of CUDA, by what probes answer: here they are made up, as each needs another machine."""

from typing import Any

import pytest

from birnn_service.doctor import software
from birnn_service.doctor.asking import ProbeError, ask
from birnn_service.doctor.finding import Device, Finding, found_by
from birnn_service.doctor.report import Report
from birnn_service.doctor.trials import Trial
from birnn_service.settings_reader import load_settings
from birnn_service.transports.grpc_transport import takes_native

GPU = {"name": "Test GPU", "memory": 16 << 30, "capability": "9.0"}
GOOD: dict[str, list[dict[str, Any]]] = {
    "runtime": [{"version": "1.31.1", "providers": ["CUDAExecutionProvider", "CPUExecutionProvider"], "cuda": "13.0"}],
    "driver": [{"cuda": "13.0", "release": "580.65.06", "gpus": [GPU]}],
    "libraries": [{"name": "CUDA", "version": "13.0"}, {"name": "cuDNN", "version": "9.14.0"}],
}


def findings(
    monkeypatch: pytest.MonkeyPatch, device: Device, **answers: list[dict[str, Any]] | str
) -> dict[str, Finding]:
    def answer(task: str) -> list[dict[str, Any]]:
        found = {**GOOD, **answers}[task]
        if isinstance(found, str):
            raise ProbeError(found, [])
        return found

    monkeypatch.setattr(software, "ask", answer)
    return {finding.name: finding for finding in software.onnxruntime(device)}


def test_a_machine_with_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    found = findings(monkeypatch, "cuda")
    assert {finding.status for finding in found.values()} == {"ok"}
    assert found["NVIDIA driver"].text == "580.65.06, for CUDA up to 13.0"
    assert found["GPU 0"].text == "Test GPU, 16384 MiB, compute capability 9.0"
    assert found["cuDNN"].text == "9.14.0"


@pytest.mark.parametrize(("device", "status"), [("auto", "note"), ("cuda", "broken")])
def test_what_is_missing_for_a_gpu_is_broken_only_where_one_was_asked_for(
    monkeypatch: pytest.MonkeyPatch, device: Device, status: str
) -> None:
    found = findings(monkeypatch, device, driver="libcuda.so.1: no such file", libraries=[{"name": "x", "error": "y"}])
    assert found["NVIDIA driver"].status == found["x"].status == status
    assert "(580 or newer)" in found["NVIDIA driver"].cure
    assert found["x"].cure == "pip install 'onnxruntime-gpu[cuda,cudnn]'"
    assert findings(monkeypatch, "cpu", driver="!").keys() == {"onnxruntime"}


def test_a_driver_older_than_the_cuda_of_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> None:
    found = findings(monkeypatch, "cuda", driver=[{"cuda": "12.8", "release": "570.1", "gpus": []}])
    assert found["NVIDIA driver"].text == "570.1, for CUDA up to 12.8; onnxruntime was built for CUDA 13"
    assert "driver 580 or newer" in found["NVIDIA driver"].cure


def test_the_grpc_front_end_and_what_takes_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(software, "ask", lambda task: [{}])
    (there,) = software.transport()
    assert (there.status, there.text) == (
        "ok",
        "can be loaded; --transport auto takes it, and grpcio with --tls-cert",
    )

    def absent(task: str) -> list[dict[str, Any]]:
        raise ProbeError("the native gRPC front end was not built: install it", [])

    monkeypatch.setattr(software, "ask", absent)
    (missing,) = software.transport()
    assert missing.status == "note"
    assert "was not built: install it; --transport auto takes grpcio instead" in missing.text


def test_the_front_end_is_said_to_be_there_exactly_where_the_server_can_use_it() -> None:
    (found,) = software.transport()
    taken, reason = takes_native(load_settings({"transport": "auto"}))
    assert (found.status == "ok") == taken
    assert taken or reason in found.text


def test_libraries_that_crash_are_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    found = findings(monkeypatch, "cuda", libraries="ended by SIGSEGV")
    assert (found["CUDA"].status, found["CUDA"].text) == ("broken", "ended by SIGSEGV")


def test_a_probe_that_hangs_is_ended() -> None:
    with pytest.raises(ProbeError, match="not done after 0 s"):
        ask("server", 0.001)


def test_a_probe_that_fails_says_why_without_the_type_of_its_error() -> None:
    with pytest.raises(ProbeError, match=r"^--models 'gopher://"):
        ask("bundles", models="gopher://example/models/x")


def test_a_check_that_fails_is_a_finding() -> None:
    def check() -> list[Finding]:
        raise RuntimeError("out of luck")

    (finding,) = found_by("luck", check)
    assert finding == Finding("luck", "note", "cannot be looked at: RuntimeError: out of luck")


def test_one_good_engine_is_enough_and_a_precision_that_is_not_allowed_is_no_reason() -> None:
    trials = [
        Trial("a/1", "cpu", "native", "fp32", "refused", "no kernels"),
        Trial("a/1", "cpu", "native", "bf16", "not allowed", "float32 only"),
        Trial("a/1", "cpu", "onnxruntime", "fp32", "good"),
        Trial("b/1", "cpu", "native", "fp32", "refused", "damaged \x1b[2J"),
        Trial("b/1", "cpu", "native", "bf16", "not allowed", "float32 only"),
        Trial("b/1", "cpu", "onnxruntime", "fp32", "refused", "damaged \x1b[2J"),
    ]
    report = Report("cpu", [], ["a/1", "b/1", "c/1"], trials)
    assert [(reason.name, reason.text) for reason in report.reasons] == [
        ("b/1", "damaged \x1b[2J"),
        ("c/1", "it could not be fetched"),
    ]
    assert all(line.isprintable() for line in report.lines())
    assert Report("cpu", [], ["a/1"], trials[:3]).reasons == []
