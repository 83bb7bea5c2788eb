"""What is installed and works: the server itself, kernels, the gRPC front end, onnxruntime, and CUDA."""

from collections.abc import Iterator

from birnn_service.doctor.asking import ProbeError, ask
from birnn_service.doctor.finding import Device, Finding, Status
from birnn_service.doctor.packages import DISTRIBUTION

# Oldest driver for each CUDA, as NVIDIA's release notes have it.
DRIVERS = {"11": "450", "12": "525", "13": "580"}
GPU_PACKAGE = f"pip uninstall -y onnxruntime && pip install '{DISTRIBUTION}[service,gpu]'"


def server(device: Device) -> Iterator[Finding]:
    """Whether the server can be imported."""
    extra = "gpu" if device == "cuda" else "cpu"
    try:
        ask("server")
    except ProbeError as error:
        yield Finding("server", "broken", str(error), f"pip install '{DISTRIBUTION}[service,{extra}]'")


def kernels(device: Device) -> Iterator[Finding]:
    """The native kernels; without them onnxruntime serves on a CPU."""
    try:
        (answer,) = ask("kernels")
    except ProbeError as error:
        if device != "cuda":
            cure = f"pip install --force-reinstall --no-deps --no-cache-dir {DISTRIBUTION}, with a C++17 compiler here"
            yield Finding("kernels", "note", f"{error}; onnxruntime serves instead, which is slower", cure)
        return
    sets = [f"{name} ({', '.join(precisions)})" for name, precisions in answer["sets"].items()]
    yield Finding("kernels", "ok", ", ".join(sets))


def transport() -> Iterator[Finding]:
    """The native gRPC front end; without it grpcio's server takes the calls, which costs more for each of them."""
    try:
        ask("front")
    except ProbeError as error:
        cure = f"pip install --force-reinstall --no-deps --no-cache-dir {DISTRIBUTION}"
        yield Finding("gRPC front end", "note", f"{error}; --transport auto takes grpcio instead, native fails", cure)
        return
    text = "can be loaded; --transport auto takes it, and grpcio with --tls-cert"
    yield Finding("gRPC front end", "ok", text)


def onnxruntime(device: Device) -> Iterator[Finding]:
    """onnxruntime and, if it knows CUDA, what it needs for that."""
    try:
        (answer,) = ask("runtime")
    except ProbeError as error:
        extra = "gpu" if device == "cuda" else "cpu"
        yield Finding("onnxruntime", "broken", str(error), f"pip install '{DISTRIBUTION}[service,{extra}]'")
        return
    built = f", built for CUDA {answer['cuda']}" if answer["cuda"] else ""
    yield Finding("onnxruntime", "ok", f"{answer['version']}{built}: {', '.join(answer['providers'])}")
    if device == "cpu":
        return
    # Without a GPU a server with --device auto serves on the CPU.
    trouble: Status = "broken" if device == "cuda" else "note"
    major = str(answer["cuda"]).partition(".")[0]
    has_cuda = "CUDAExecutionProvider" in answer["providers"]
    try:
        (driver,) = ask("driver")
    except ProbeError as error:
        least = f" ({DRIVERS[major]} or newer)" if major in DRIVERS else ""
        cure = f"install NVIDIA's driver{least}; in a container, start it with --gpus all (NVIDIA Container Toolkit)"
        yield Finding("NVIDIA driver", trouble, str(error), cure)
    else:
        yield from _gpus(driver, major)
    if not has_cuda:
        yield Finding("CUDA", trouble, f"this onnxruntime {answer['version']} has no CUDA", GPU_PACKAGE)
        return
    try:
        libraries = ask("libraries")
    except ProbeError as error:
        yield Finding("CUDA", trouble, str(error), GPU_PACKAGE)
        return
    for library in libraries:
        if "version" in library:
            yield Finding(library["name"], "ok", library["version"])
        else:
            yield Finding(library["name"], trouble, library["error"], "pip install 'onnxruntime-gpu[cuda,cudnn]'")


def _gpus(driver: dict[str, object], major: str) -> Iterator[Finding]:
    gpus = driver["gpus"]
    assert isinstance(gpus, list)
    supported = str(driver["cuda"])
    text = f"{driver['release'] or 'version unknown'}, for CUDA up to {supported}"
    if major and int(supported.partition(".")[0]) < int(major):
        cure = f"install driver {DRIVERS.get(major, 'of that CUDA')} or newer, or onnxruntime-gpu for an older CUDA"
        yield Finding("NVIDIA driver", "note", f"{text}; onnxruntime was built for CUDA {major}", cure)
    else:
        yield Finding("NVIDIA driver", "ok", text)
    for number, gpu in enumerate(gpus):
        capability = f"compute capability {gpu['capability']}"
        yield Finding(f"GPU {number}", "ok", f"{gpu['name']}, {gpu['memory'] >> 20} MiB, {capability}")
