"""Loads tests/_cshim, which is no part of a package, and makes the holds of connections in shared memory."""

from __future__ import annotations

import importlib.util
import mmap
import sys
from pathlib import Path
from types import ModuleType


def load_cshim() -> ModuleType:
    """The compiled doors; RuntimeError that says how to build them."""
    if "_cshim" in sys.modules:
        return sys.modules["_cshim"]
    built = sorted(Path(__file__).parent.parent.glob("_cshim.*.so"))
    if not built:
        raise RuntimeError("tests/_cshim is not built: LBFAST_TEST_EXT=1 python setup.py build_ext --inplace")
    spec = importlib.util.spec_from_file_location("_cshim", built[0])
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["_cshim"] = module
    spec.loader.exec_module(module)
    return module


cshim = load_cshim()


def shared_refs(conns: int) -> mmap.mmap:
    """The StickRefs of ``conns`` connections, as a worker's slab holds them: they survive its death."""
    return mmap.mmap(-1, conns * cshim.REF_SIZE)


def held_places(refs: mmap.mmap) -> list[tuple[int, int, int]]:
    conns = len(refs) // cshim.REF_SIZE
    return [place for conn in range(conns) if (place := cshim.ref(refs, conn)) is not None]
