"""The compiled modules of lbfast: one list of extensions, one dict of directives.

LBFAST_DEBUG=1     bounds checks, debug counters, fault doors, -O1 -g   (make debug)
LBFAST_TEST_EXT=1  also builds tests/_cshim.pyx, the tests' doors to C functions (in place only)
LBFAST_SANITIZE=1  AddressSanitizer and UndefinedBehaviorSanitizer

Each flavour keeps its C, objects and modules in build/FLAVOUR, so that none is ever taken for another.
"""

import os

from Cython.Build import cythonize
from setuptools import Extension, setup

DEBUG = os.environ.get("LBFAST_DEBUG") == "1"
TEST_EXT = os.environ.get("LBFAST_TEST_EXT") == "1"
SANITIZE = os.environ.get("LBFAST_SANITIZE") == "1"
BUILD = "build/" + ("sanitize" if SANITIZE else "debug" if DEBUG else "release")

MODULES = [
    "_shm",
    "_table",
    "_stick",
    "_sched",
    "_timer",
    "_pipe",
    "_conn",
    "_counters",
    "_ring",
    "_journal",
    "_replica",
    "_proxy",
    "_worker",
    "_relay",
    "_pick",
    "_close",
    "_link",
    "_handover",
    "_accept",
    "_splice",
    "_repair",
    "_letters",
    "_tcp_image",
]

DIRECTIVES = {
    "language_level": 3,
    "boundscheck": DEBUG,
    "wraparound": False,
    "cdivision": not DEBUG,
    "initializedcheck": DEBUG,
    "embedsignature": True,
    "binding": False,
}

CFLAGS = [
    "-Wall",
    "-Wextra",
    "-Wno-unused-parameter",
    "-Wno-unused-function",
    "-Wno-sign-compare",
    "-fno-strict-aliasing",
]
CFLAGS += ["-O1", "-g"] if DEBUG or SANITIZE else ["-O2", "-g0"]
LDFLAGS: list[str] = []
if SANITIZE:
    CFLAGS += ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer"]
    LDFLAGS += ["-fsanitize=address,undefined"]


def extension(name: str, source: str) -> Extension:
    return Extension(
        name,
        [source],
        include_dirs=["lbfast"],
        define_macros=[("LBFAST_DEBUG", "1" if DEBUG else "0"), ("_GNU_SOURCE", None)],
        extra_compile_args=CFLAGS,
        extra_link_args=LDFLAGS,
    )


extensions = [extension(f"lbfast.{name}", f"lbfast/{name}.pyx") for name in MODULES]
if TEST_EXT:
    extensions.append(extension("tests._cshim", "tests/_cshim.pyx"))

CORES = os.cpu_count() or 1

setup(
    ext_modules=cythonize(extensions, compiler_directives=DIRECTIVES, build_dir=f"{BUILD}/cython", nthreads=CORES),
    options={"build": {"build_base": BUILD}, "build_ext": {"parallel": CORES}},
)
