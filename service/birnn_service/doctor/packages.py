"""What is installed, and what each extra would bring."""

import re
from collections.abc import Iterator
from importlib import metadata

from birnn_service.doctor.finding import Device, Finding

DISTRIBUTION = "birnn-serving"
# What one gains by each extra, but for those of developers.
EXTRAS = {
    "service": "birnn serve",
    "cpu": "serving and exporting with onnxruntime on CPUs",
    "gpu": "serving with onnxruntime on NVIDIA GPUs, with CUDA and cuDNN; instead of cpu",
    "sources": "encoders from s3://, gs://, az:// and https://",
    "otel": "traces to an OpenTelemetry collector (--otlp-endpoint)",
    "export": "birnn train and birnn export",
    "loadtest": "birnn loadtest",
    "bulk": "birnn bulk, besides service and cpu or gpu; Parquet and .zst files in birnn encode",
    "ray": "birnn bulk --ray-address",
    "map": "birnn map",
    "langchain": "encoders as embeddings of LangChain",
    "llama-index": "encoders as embeddings of LlamaIndex",
    "sklearn": "encoders as transformers of scikit-learn",
}


def extras() -> Iterator[Finding]:
    """Which extras are complete, and what the others would bring."""
    missing = {extra: _missing(extra) for extra in EXTRAS}
    complete = [extra for extra, names in missing.items() if not names]
    yield Finding("extras", "ok", f"complete: {', '.join(complete) or 'none'}")
    # The two exclude each other, and what is said of CUDA says how to get from one to the other.
    unwanted = {"gpu"} if "cpu" in complete else {"cpu"} if "gpu" in complete else set()
    for extra, names in missing.items():
        if names and extra not in unwanted:
            text = f"brings {EXTRAS[extra]}; missing: {', '.join(names)}"
            yield Finding(f"extra {extra}", "note", text, f"pip install '{DISTRIBUTION}[{extra}]'")


def runtimes(device: Device) -> Iterator[Finding]:
    """The distributions of onnxruntime: all of them write the same folder, so there must be one."""
    names = (distribution.metadata["Name"] for distribution in metadata.distributions())
    found = sorted({name for name in names if name and re.fullmatch(r"onnxruntime(-.+)?", name, re.IGNORECASE)})
    extra = "gpu" if device == "cuda" or (device == "auto" and "onnxruntime-gpu" in found) else "cpu"
    if len(found) < 2:
        return
    yield Finding(
        "packages",
        "broken" if device == "cuda" else "note",
        f"{' and '.join(found)} are installed together: they overwrite each other's files, and CUDA is hidden",
        f"pip uninstall -y {' '.join(found)} && pip install '{DISTRIBUTION}[service,{extra}]'",
    )


def _missing(extra: str) -> list[str]:
    """Distributions that an extra names and that are not installed."""
    names = []
    for requirement in metadata.requires(DISTRIBUTION) or ():
        what, _, marker = requirement.partition(";")
        if re.search(rf"""extra == ['"]{re.escape(extra)}['"]""", marker):
            name = re.match(r"[A-Za-z0-9._-]+", what)
            if name and not _is_installed(name[0]):
                names.append(name[0])
    return names


def _is_installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True
