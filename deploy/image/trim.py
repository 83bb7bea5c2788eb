"""Makes an image smaller: `trim.py SITE_PACKAGES` removes what the server never loads, and strips libraries.

Every path and every library named here must be there, and stripping must help; else this fails, and the list is to be
brought up to date. What is left is imported once, to see that it still can be. Standard library only; needs `strip`.
"""

import importlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

# Of each distribution, if it is installed: files and folders that the server never loads.
DEAD = {
    # A second copy of all of onnxruntime, for programs in C; tools that make and change graphs.
    "onnxruntime": [
        "onnxruntime/capi/libonnxruntime.so.*",
        "onnxruntime/quantization",
        "onnxruntime/tools",
        "onnxruntime/transformers",
    ],
    "onnxruntime_gpu": [
        "onnxruntime/capi/libonnxruntime.so.*",
        "onnxruntime/capi/libonnxruntime_providers_tensorrt.so",
        "onnxruntime/quantization",
        "onnxruntime/tools",
        "onnxruntime/transformers",
    ],
    # Test data, an evaluator in Python, and sources in C++.
    "onnx": ["onnx/backend", "onnx/reference", "onnx/**/*.cc", "onnx/**/*.h"],
    # Tests, and what compiles extensions.
    "numpy": ["numpy/**/tests", "numpy/f2py", "numpy/_core/include"],
    # The interface of pydantic 1.
    "pydantic": ["pydantic/v1"],
}
# Libraries that come with symbols for debuggers. Those in numpy.libs have them, too, but cannot be loaded without.
UNSTRIPPED = (
    "cryptography/hazmat/bindings/_rust*.so",
    "httptools/parser/*.so",
    "obstore/_obstore*.so",
    "safetensors/_safetensors_rust*.so",
    "tokenizers/tokenizers*.so",
    "uvloop/loop*.so",
)
# Imported at the end, to see that they still can be.
IMPORTED = (
    "cryptography.x509",
    "grpc",
    "httptools",
    "numpy",
    "obstore",
    "onnx",
    "onnxruntime",
    "pydantic",
    "tokenizers",
    "uvloop",
)


class ListError(Exception):
    """A list names what is not there, or does not help."""


def found(site_packages: Path, pattern: str) -> list[Path]:
    """What a pattern names.

    Raises:
        ListError: Nothing.
    """
    paths = sorted(site_packages.glob(pattern))
    if not paths:
        raise ListError(f"{pattern} is not there any more: bring deploy/image/trim.py up to date")
    return paths


def dead(site_packages: Path) -> Iterator[Path]:
    """Files and folders that the server never loads.

    Raises:
        ListError: One is not there, although its distribution is.
    """
    installed = {folder.name.partition("-")[0] for folder in site_packages.glob("*.dist-info")}
    for distribution, patterns in DEAD.items():
        if distribution in installed:
            for pattern in patterns:
                yield from found(site_packages, pattern)


def strip(library: Path) -> None:
    """Take the symbols for debuggers out of a library.

    Raises:
        ListError: There are none.
    """
    before = library.stat().st_size
    subprocess.run(["strip", "--strip-unneeded", str(library)], check=True)
    if library.stat().st_size >= before:
        raise ListError(f"{library} is stripped already: take it out of deploy/image/trim.py")


def main(site_packages: Path) -> None:
    """Do all of it, and say how much it was."""
    before = size(site_packages)
    for path in list(dead(site_packages)):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    for pattern in UNSTRIPPED:
        for library in found(site_packages, pattern):
            strip(library)
    sys.path.insert(0, str(site_packages))
    for name in IMPORTED:
        importlib.import_module(name)
    sys.stdout.write(f"{before >> 20} MiB before, {size(site_packages) >> 20} MiB after\n")


def size(folder: Path) -> int:
    """Bytes of all files of a folder."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except ListError as error:
        sys.exit(str(error))
