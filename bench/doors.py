"""The tests' doors to C functions, for the micro benchmarks."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType


def load_cshim() -> ModuleType:
    """``tests/_cshim``, without making its folder a package of ours."""
    built = sorted((Path(__file__).parent.parent / "tests").glob("_cshim.*.so"))
    if not built:
        raise RuntimeError("tests/_cshim is not built: LBFAST_TEST_EXT=1 python setup.py build_ext --inplace")
    if "_cshim" in sys.modules:
        return sys.modules["_cshim"]
    spec = importlib.util.spec_from_file_location("_cshim", built[0])
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["_cshim"] = module
    spec.loader.exec_module(module)
    return module
