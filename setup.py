"""Builds the kernels and the gRPC front end, and makes README.md's links absolute; all else stands in pyproject.toml.

Each instruction set is compiled from the same sources with flags of its own, and chosen when the library runs. One that
the compiler does not know is left out. The variable BIRNN_KERNELS says whether there are kernels at all:

    auto  where there is a C++17 compiler; without one everything else is installed all the same (default)
    0     none: one wheel for every platform, enough for clients
    1     always: without a working compiler the build fails

The gRPC front end is built where there are kernels and pkg-config finds libnghttp2; without it grpcio takes the calls.
"""

import glob
import logging
import os
import platform
import re
import subprocess
import tomllib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

SOURCES, FRONT_SOURCES, INCLUDES = "native/src", "native/src/front", "native/include"
FRONT, NGHTTP2 = "birnn_native._front", "libnghttp2 >= 1.52"
# Additions and multiplications are fused only where the sources ask for it: results must not depend on the optimizer.
# GCC 12 takes the undefined registers of its own intrinsics for mistakes of their callers.
FLAGS = [
    *("-std=c++17", "-O3", "-g0", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off"),
    *("-Wall", "-Wextra", "-Wno-psabi", "-Wno-uninitialized", "-Wno-maybe-uninitialized"),
]
AVX512 = ["-mavx2", "-mfma", "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mprefer-vector-width=512"]
AVX2 = ["-mavx2", "-mfma"]
X86 = {
    "avx2": AVX2,
    "avxvnni": [*AVX2, "-mavxvnni"],
    "avx512": AVX512,
    "avx512vnni": [*AVX512, "-mavx512vnni"],
    "avx512bf16": [*AVX512, "-mavx512bf16"],
}
ARM = {"neondot": ["-march=armv8.2-a+dotprod"]}
SETS = {"x86_64": X86, "amd64": X86} | ({"aarch64": ARM} if platform.system() == "Linux" else {})


def machine() -> str:
    """The processor to build for: this one, or that of Python's variable for cross compilers, such as linux-aarch64."""
    return os.environ.get("_PYTHON_HOST_PLATFORM", platform.machine()).lower().rpartition("-")[2]


def _pkg_config(option: str) -> str:
    """What pkg-config says of libnghttp2; raises OSError or CalledProcessError where it is not there."""
    return subprocess.run(["pkg-config", option, NGHTTP2], check=True, capture_output=True, text=True).stdout


class BuildKernels(build_ext):
    """Compiles each source with its own flags and links them into one library, which is no module of Python's."""

    def get_ext_filename(self, fullname: str) -> str:
        """A name without Python's version: the library is loaded by ctypes, and so the same for all."""
        return os.path.join(*fullname.split(".")) + ".so"

    def get_export_symbols(self, ext: Extension) -> list[str]:
        """None: what is visible says so in the sources."""
        return []

    def build_extension(self, ext: Extension) -> None:
        """Compile and link."""
        if ext.name == FRONT:
            self._build_front(ext)
        else:
            self._build_kernels(ext)

    def _build_front(self, ext: Extension) -> None:
        compile_flags, link_flags = (_pkg_config(option).split() for option in ("--cflags", "--libs"))
        objects = self.compiler.compile(
            ext.sources, output_dir=self.build_temp, include_dirs=[INCLUDES], extra_postargs=[*FLAGS, *compile_flags]
        )
        self.compiler.link_shared_object(
            objects, self.get_ext_fullpath(ext.name), extra_postargs=[*link_flags, "-pthread"], target_lang="c++"
        )

    def _build_kernels(self, ext: Extension) -> None:
        sets = SETS.get(machine(), {})
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            compiled = dict(zip(sets, pool.map(self._try, sets, sets.values()), strict=True))
            macros = [(f"BIRNN_HAVE_{name.upper()}", None) for name, objects in compiled.items() if objects]
            common = pool.map(
                lambda name: self._compile(name, [], macros), ("portable", "portable_int8", "encoder", "library")
            )
            objects = [file for files in (*compiled.values(), *common) for file in files]
        self.compiler.link_shared_object(
            objects, self.get_ext_fullpath(ext.name), extra_postargs=["-pthread"], target_lang="c++"
        )

    def _try(self, name: str, flags: list[str]) -> list[str]:
        """Object files of an instruction set; none where the compiler does not know it."""
        try:
            return self._compile(name, flags, [])
        except CompileError as error:
            self.announce(f"leaving out {name}: {error}", level=3)
            return []

    def _compile(self, name: str, flags: Iterable[str], macros: list[tuple[str, str | None]]) -> list[str]:
        return self.compiler.compile(
            [f"{SOURCES}/{name}.cpp"],
            output_dir=self.build_temp,
            macros=macros,
            include_dirs=[INCLUDES],
            extra_postargs=[*FLAGS, *flags],
        )


class AnyPythonWheel(bdist_wheel):
    """A wheel that no version of Python is tied to, with a compiled library or without."""

    def get_tag(self) -> tuple[str, str, str]:
        """Any Python 3, and this platform where there are kernels."""
        return "py3", "none", super().get_tag()[2]


def libraries() -> list[Extension]:
    """The libraries of kernels and of the gRPC front end, or nothing; by BIRNN_KERNELS."""
    wanted = os.environ.get("BIRNN_KERNELS", "auto")
    if wanted not in ("auto", "0", "1"):
        raise SystemExit(f"BIRNN_KERNELS is {wanted!r}; it can be auto, 0 or 1")
    if wanted == "0":
        return []
    kernels = Extension("birnn_native._kernels", [f"{SOURCES}/library.cpp"], optional=wanted == "auto")
    try:
        _pkg_config("--exists")
    except (OSError, subprocess.CalledProcessError):
        logging.getLogger(__name__).warning("leaving out the gRPC front end: pkg-config finds no %s", NGHTTP2)
        return [kernels]
    return [kernels, Extension(FRONT, sorted(glob.glob(f"{FRONT_SOURCES}/*.cpp")), optional=wanted == "auto")]


def readme() -> str:
    """README.md with links that also work on a package index: to this version's files in the repository."""
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    files = f"{project['urls']['Repository']}/blob/v{project['version']}/"
    return re.sub(r"\]\((?!https?://|#|mailto:)", f"]({files}", Path("README.md").read_text(encoding="utf-8"))


setup(
    ext_modules=libraries(),
    cmdclass={"build_ext": BuildKernels, "bdist_wheel": AnyPythonWheel},
    long_description=readme(),
    long_description_content_type="text/markdown",
)
