"""The source keeps its own rules: imports point down, no GIL in the data plane, one word per idea ...

The rules are in source_rules.py, source_imports.py and source_words.py.
Each is fed a snippet that breaks it, so that no rule can pass by being blind.
"""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import source_rules as rules
from tests.source_imports import COMPILED, imports_point_down
from tests.source_text import Rule, Source, family
from tests.source_words import read_banned, speaks_our_words

TOP = Path(__file__).resolve().parent.parent
GIL_TAKE = "= __Pyx_PyGILState_Ensure()"
BANNED = read_banned((TOP / "docs/vocabulary.md").read_text(encoding="utf-8"))

# What keeps which rules: the program all of them, tests and tools those about size and manners.
MANNERS: tuple[Rule, ...] = (
    rules.file_is_short,
    rules.functions_are_short,
    rules.starts_with_docstring,
    rules.no_machine_paths,
)
PROGRAM: tuple[Rule, ...] = (
    *MANNERS,
    imports_point_down,
    rules.only_named_files_change_the_host,
    rules.no_wall_clock,
    rules.no_module_state,
    rules.no_unfinished_marks,
    speaks_our_words(BANNED),
    rules.nogil_says_noexcept,
    rules.no_old_cython,
    rules.closes_on_exec,
)
PLAIN = ("Makefile", "README.md", "pyproject.toml", ".ci/run", "docs/**/*.md", "packaging/*", "changes/*", "bench/*.md")


def read(path: Path) -> Source:
    return Source(path.relative_to(TOP).as_posix(), path.read_text(encoding="utf-8"))


def files(*patterns: str) -> list[str]:
    found = {path for pattern in patterns for path in TOP.glob(pattern) if path.is_file()}
    return sorted(path.relative_to(TOP).as_posix() for path in found if "__pycache__" not in path.parts)


def faults_of(path: str, rule_set: tuple[Rule, ...]) -> list[str]:
    source = read(TOP / path)
    return [f"{path} {fault}" for rule in rule_set for fault in rule(source)]


@pytest.mark.parametrize("path", files("lbfast/**/*.py", "lbfast/*.pyx", "lbfast/*.pxd", "lbfast/*.pyi"))
def test_program_file(path: str) -> None:
    found = faults_of(path, PROGRAM)
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize("path", files("tests/**/*.py", "tests/*.pyx", "bench/**/*.py", "setup.py", "packaging/*.py"))
def test_tool_file(path: str) -> None:
    found = faults_of(path, MANNERS)
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize("path", files(*PLAIN))
def test_plain_file(path: str) -> None:
    found = faults_of(path, (rules.no_machine_paths,))
    assert not found, "\n" + "\n".join(found)


def setup_constant(wanted: str) -> ast.expr:
    body = ast.parse((TOP / "setup.py").read_text(encoding="utf-8")).body
    return next(value for _, name, value in rules.bindings(body) if name == wanted)


MODULES: list[str] = ast.literal_eval(setup_constant("MODULES"))
# The others: _shm and _table also set up what the loop reads, and raise while they do.
DATA_PLANE = sorted(set(MODULES) - {"_shm", "_table"})

# --- no GIL in the data plane's C -----------------------------------------------------------------


def directives(debug: bool) -> list[str]:
    """DIRECTIVES of setup.py, for a release build or a debug build."""
    made = eval(compile(ast.Expression(setup_constant("DIRECTIVES")), "setup.py", "eval"), {"DEBUG": debug})
    return [word for name, value in made.items() if name != "language_level" for word in ("-X", f"{name}={value}")]


def cython(source: Path, target: Path, debug: bool = False) -> str:
    """Write the C of a module; what Cython said about it, performance hints too."""
    command = [sys.executable, "-m", "cython", "-3", *directives(debug), "-I", str(TOP), "-o", str(target), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=TOP, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    return said


def gil_takes(c_text: str) -> list[str]:
    """The source line before each GIL take: the comment above names it, `/* "lbfast/_x.pyx":12`."""
    taken, last = [], "?"
    for line in c_text.split("\n"):
        found = re.search(r'/\* "([^"]+)":(\d+)$', line)
        last = f"{found[1]}:{found[2]}" if found else last
        if GIL_TAKE in line:
            taken.append(last)
    return taken


@pytest.mark.parametrize("name", DATA_PLANE)
def test_data_plane_never_takes_the_gil(name: str, tmp_path: Path) -> None:
    said = cython(TOP / "lbfast" / f"{name}.pyx", tmp_path / "made.c")
    assert "performance hint" not in said, said
    assert gil_takes((tmp_path / "made.c").read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("name", MODULES)
def test_debug_build_translates(name: str, tmp_path: Path) -> None:
    """Where Python's division is on, `a / b` of two integers is a float: `//` is what was meant."""
    cython(TOP / "lbfast" / f"{name}.pyx", tmp_path / "made.c", debug=True)


def test_gil_take_is_seen(tmp_path: Path) -> None:
    bad = tmp_path / "bad.pyx"
    bad.write_text('"""Raises without the GIL."""\ncdef int f(int x) except -1 nogil:\n    raise ValueError(x)\n')
    cython(bad, tmp_path / "bad.c")
    assert gil_takes((tmp_path / "bad.c").read_text())[0].endswith("bad.pyx:3")


def test_performance_hint_is_seen(tmp_path: Path) -> None:
    bad = tmp_path / "bad.pyx"
    bad.write_text(
        '"""Checks for an exception."""\ncdef void f() nogil:\n    pass\n\ndef g():\n    with nogil:\n        f()\n'
    )
    assert "performance hint" in cython(bad, tmp_path / "bad.c")


def test_every_compiled_module_is_built_and_known() -> None:
    assert sorted(MODULES) == sorted(path.stem for path in (TOP / "lbfast").glob("*.pyx"))
    assert {family(name) for name in MODULES} <= set(COMPILED)


# --- each rule can fail ---------------------------------------------------------------------------

LONG = "".join(f"    x = {number}\n" for number in range(61))
BAD: list[tuple[str, Rule, str, str]] = [
    ("model imports health", imports_point_down, "lbfast/model/a.py", "from lbfast.health import probes\n"),
    ("model imports a library", imports_point_down, "lbfast/model/a.py", "def f():\n    import structlog\n"),
    ("relative", imports_point_down, "lbfast/model/a.py", "from . import state\n"),
    ("loop outside the worker", imports_point_down, "lbfast/control/a.py", "from lbfast._splice import Loop\n"),
    ("cli past its client", imports_point_down, "lbfast/cli/a.py", "from lbfast._stick import StickTable\n"),
    ("threads before fork", imports_point_down, "lbfast/supervisor/a.py", "import threading\n"),
    ("unknown package", imports_point_down, "lbfast/misc/a.py", "import os\n"),
    ("upwards in C", imports_point_down, "lbfast/_pipe.pyx", "from lbfast._splice cimport loop\n"),
    (
        "upwards in brackets",
        imports_point_down,
        "lbfast/_pipe.pyx",
        "from lbfast._conn cimport (\n    Conn,\n)\n",
    ),
    ("host", rules.only_named_files_change_the_host, "lbfast/health/a.py", "import pyroute2\n"),
    ("packet socket", rules.only_named_files_change_the_host, "lbfast/cli/a.py", "s = socket(AF_PACKET)\n"),
    ("wall clock", rules.no_wall_clock, "lbfast/supervisor/a.py", "end = time.time() + 5\n"),
    ("wall clock by name", rules.no_wall_clock, "lbfast/supervisor/a.py", "from time import time\n"),
    ("module list", rules.no_module_state, "lbfast/cli/a.py", "workers = []\n"),
    ("module object", rules.no_module_state, "lbfast/cli/a.py", "_lock: Lock = threading.Lock()\n"),
    ("class default", rules.no_module_state, "lbfast/cli/a.py", "class A:\n    names: list[str] = []\n"),
    ("changed constant", rules.no_module_state, "lbfast/cli/a.py", "X = {}\ndef f():\n    X['a'] = 1\n"),
    ("changed by method", rules.no_module_state, "lbfast/cli/a.py", "X = []\ndef f():\n    X.append(1)\n"),
    ("global", rules.no_module_state, "lbfast/cli/a.py", "def f():\n    global x\n    x = 1\n"),
    ("C global", rules.no_module_state, "lbfast/_pipe.pyx", "cdef int count\n"),
    ("C global with value", rules.no_module_state, "lbfast/_pipe.pyx", "cdef Pipe* free_list = NULL\n"),
    ("Cython module list", rules.no_module_state, "lbfast/_pipe.pyx", "pipes = []\n"),
    ("long file", rules.file_is_short, "lbfast/cli/a.py", "x = 1\n" * 501),
    ("long function", rules.functions_are_short, "lbfast/cli/a.py", f"def f():\n{LONG}"),
    ("long method", rules.functions_are_short, "lbfast/cli/a.py", f"class A:\n  async def f(\n      a,\n  ):\n{LONG}"),
    ("long C function", rules.functions_are_short, "lbfast/_pipe.pyx", f"cdef int f(int a) noexcept nogil:\n{LONG}"),
    ("no docstring", rules.starts_with_docstring, "lbfast/cli/a.py", "# a comment\nimport os\n"),
    ("unfinished", rules.no_unfinished_marks, "lbfast/cli/a.py", "# TO\u0044O: later\n"),
    ("machine path", rules.no_machine_paths, "docs/a.md", "see /ho\u006de/somebody/notes\n"),
    ("banned argument", speaks_our_words(BANNED), "lbfast/cli/a.py", "def f(node_id):\n    pass\n"),
    ("banned class", speaks_our_words(BANNED), "lbfast/cli/a.py", "class ClientSession:\n    pass\n"),
    ("banned plural", speaks_our_words(BANNED), "lbfast/cli/a.py", "backends = 1\n"),
    ("banned text", speaks_our_words(BANNED), "lbfast/cli/a.py", "print('no such frontend')\n"),
    ("banned in C", speaks_our_words(BANNED), "lbfast/_pipe.pyx", "cdef struct Upstream:\n    int fd\n"),
    ("no noexcept", rules.nogil_says_noexcept, "lbfast/_pipe.pxd", "cdef int f(int (*g)(int), int b) nogil\n"),
    ("DEF", rules.no_old_cython, "lbfast/_pipe.pyx", "DEF SIZE = 4\n"),
    ("include", rules.no_old_cython, "lbfast/_pipe.pyx", 'include "part.pxi"\n'),
    ("C socket", rules.closes_on_exec, "lbfast/_pipe.pyx", "    fd = c_socket(AF_INET, SOCK_STREAM, 0)\n"),
    ("C accept", rules.closes_on_exec, "lbfast/_pipe.pyx", "    fd = accept(fd, NULL, NULL)\n"),
    ("pipe2", rules.closes_on_exec, "lbfast/cli/a.py", "os.pipe2(os.O_NONBLOCK)\n"),
    ("recv_fds", rules.closes_on_exec, "lbfast/cli/a.py", "socket.recv_fds(s, 100, 2)\n"),
    ("inherit", rules.closes_on_exec, "lbfast/cli/a.py", "os.set_inheritable(fd, True)\n"),
    ("dup2", rules.closes_on_exec, "lbfast/cli/a.py", "os.dup2(a, b)\n"),
    ("recvmsg", rules.closes_on_exec, "lbfast/cli/a.py", "s.recvmsg(100, 200)\n"),
]
# The neighbour of a bad thing, which the rule must let pass.
GOOD: list[tuple[str, Rule, str, str]] = [
    ("down", imports_point_down, "lbfast/config/a.py", "from lbfast.model.state import Admin\n"),
    (
        "worker has the loop",
        imports_point_down,
        "lbfast/supervisor/worker.py",
        "from lbfast._splice import Loop\n",
    ),
    ("monotonic", rules.no_wall_clock, "lbfast/supervisor/a.py", "end = time.monotonic() + 5\n"),
    ("table", rules.no_module_state, "lbfast/cli/a.py", "_TABLE: dict[str, int] = {}\n"),
    (
        "C function and enum",
        rules.no_module_state,
        "lbfast/_a.pyx",
        "cdef enum:\n    A = 1\ncdef int f(int x):\n    x = 1\n",
    ),
    (
        "docstring not counted",
        rules.functions_are_short,
        "lbfast/cli/a.py",
        f'def f():\n    """{LONG}    """\n    pass\n',
    ),
    ("exempt", rules.functions_are_short, "lbfast/_pipe.pyx", f"cdef int f():  # long: errno switch\n{LONG}"),
    ("library's word", speaks_our_words(BANNED), "lbfast/cli/a.py", "set_nodelay(process.terminate)\n"),
    (
        "extern word",
        speaks_our_words(BANNED),
        "lbfast/_a.pyx",
        'cdef extern from "x.h":\n    struct node:\n        int a\n',
    ),
    (
        "extern socket",
        rules.closes_on_exec,
        "lbfast/_a.pyx",
        'cdef extern from "x.h":\n    int c_socket "socket" (int a)\n',
    ),
    ("C socket", rules.closes_on_exec, "lbfast/_a.pyx", "    fd = c_socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)\n"),
    ("not inherited", rules.closes_on_exec, "lbfast/cli/a.py", "os.dup2(a, b, inheritable=False)\n"),
]


@pytest.mark.parametrize(("rule", "path", "text"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_rule_sees(rule: Rule, path: str, text: str) -> None:
    assert len(rule(Source(path, text))) == 1


@pytest.mark.parametrize(("rule", "path", "text"), [row[1:] for row in GOOD], ids=[row[0] for row in GOOD])
def test_rule_lets_pass(rule: Rule, path: str, text: str) -> None:
    assert rule(Source(path, text)) == []


def test_every_rule_is_tried() -> None:
    tried = {rule.__qualname__ for _, rule, _, _ in BAD}
    assert tried == {rule.__qualname__ for rule in PROGRAM}


def test_banned_words_are_read() -> None:
    found = {each.word: each for each in BANNED}
    assert {"backend", "frontend", "vserver", "upstream", "master", "slave", "node", "session"} <= set(found)
    assert found["backend"].in_text
    assert not found["member"].in_text
    exempt = read_banned("## Banned words\n| `node` | names | peer | `lbfast/l4/*.py`: netlink's word |\n")
    assert exempt[0].places == ("lbfast/l4/*.py",)
