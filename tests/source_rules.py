"""The rules that the source itself must keep: pure functions from one file to its faults."""

import ast
import fnmatch
import re
from collections.abc import Iterator

from tests.source_text import Source, functions, imported, line_of, without_extern

# --- effects and clocks ---------------------------------------------------------------------------

# The files that change the machine: addresses, routes, packet sockets, firewall rules.
HOST_FILES: tuple[str, ...] = (
    "lbfast/supervisor/arp.py",
    "lbfast/supervisor/netlink.py",
    "lbfast/supervisor/addresses.py",
    "lbfast/supervisor/neighbours.py",
    "lbfast/ha/ping.py",
)
HOST_FILES += ("lbfast/supervisor/listeners.py", "lbfast/l4/nft.py", "lbfast/ha/takeover.py")
# Only asks the kernel for its listening sockets, over the same kind of socket.
NETLINK_READERS = ("lbfast/control/backlog.py",)
# `time.time()` is for what people read (log lines, "since"), never for a deadline.
WALL_CLOCK_FILES = ("lbfast/health/runner.py", "lbfast/control/*", "lbfast/cli/demo_certs.py", "lbfast/web/*")


def only_named_files_change_the_host(source: Source) -> list[str]:
    if any(fnmatch.fnmatch(source.path, pattern) for pattern in HOST_FILES):
        return []
    if source.path in NETLINK_READERS and not re.search(r"\bNETLINK_ROUTE\b|\bNETLINK_NETFILTER\b", source.code):
        return []
    pattern = r"\bpyroute2\b|\bAF_PACKET\b|\bAF_NETLINK\b|\bSIOCSIF\w+"
    return [
        f"line {line_of(source.code, found.start())}: {found[0]}; only {', '.join(HOST_FILES)} change the host"
        for found in re.finditer(pattern, source.code)
    ]


def no_wall_clock(source: Source) -> list[str]:
    if not source.is_python or any(fnmatch.fnmatch(source.path, pattern) for pattern in WALL_CLOCK_FILES):
        return []
    calls = [part for part in ast.walk(source.tree) if isinstance(part, ast.Call)]
    names = {line for line, name in imported(source) if name == "time.time"}
    names |= {call.lineno for call in calls if ast.unparse(call.func) in ("time.time", "time.time_ns")}
    return [f"line {line}: time.time() jumps with the clock; use time.monotonic()" for line in sorted(names)]


# --- no state in modules --------------------------------------------------------------------------

_LITERALS = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)
_MADE_ONCE = {"get_logger", "getLogger", "compile", "TypeVar", "ParamSpec", "NewType", "namedtuple", "frozenset"}
_MADE_ONCE |= {"MappingProxyType", "TypeAdapter"}
_CHANGES = {"append", "add", "update", "pop", "popitem", "clear", "extend", "insert", "remove", "discard", "setdefault"}


def bindings(body: list[ast.stmt]) -> Iterator[tuple[int, str, ast.expr]]:
    for part in body:
        if isinstance(part, ast.Assign):
            for target in part.targets:
                if isinstance(target, ast.Name):
                    yield part.lineno, target.id, part.value
        elif isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name) and part.value is not None:
            yield part.lineno, part.target.id, part.value


def _is_state(value: ast.expr) -> bool:
    if isinstance(value, ast.Call):
        return ast.unparse(value.func).rsplit(".", 1)[-1] not in _MADE_ONCE
    return isinstance(value, _LITERALS)


def no_module_state(source: Source) -> list[str]:
    if source.is_cython:
        return _no_module_state_in_cython(source)
    faults = []
    constants = set()
    for line, name, value in bindings(source.tree.body):
        if name.upper() == name:
            constants.add(name)
        elif not name.startswith("__") and name.lower() == name and _is_state(value):
            faults.append(f"line {line}: module state {name!r}; pass it as an argument, or make it a CONSTANT")
    for part in ast.walk(source.tree):
        if isinstance(part, ast.Global):
            faults.append(f"line {part.lineno}: global {', '.join(part.names)}")
        elif isinstance(part, ast.ClassDef):
            faults += [
                f"line {line}: class-level default {part.name}.{name} is shared by all instances"
                for line, name, value in bindings(part.body)
                if name.lower() == name and name != "model_config" and isinstance(value, _LITERALS)
            ]
        elif isinstance(part, ast.expr) and (name := _changed(part)) in constants:
            faults.append(f"line {part.lineno}: constant {name} is changed")
    return faults


def _changed(part: ast.expr) -> str:
    """The plain name that this call or subscript changes in place, or nothing."""
    if isinstance(part, ast.Call) and isinstance(part.func, ast.Attribute) and part.func.attr in _CHANGES:
        return part.func.value.id if isinstance(part.func.value, ast.Name) else ""
    if isinstance(part, ast.Subscript) and isinstance(part.ctx, ast.Store | ast.Del):
        return part.value.id if isinstance(part.value, ast.Name) else ""
    return ""


def _no_module_state_in_cython(source: Source) -> list[str]:
    declared = r"cdef\s+(?!extern|class|struct|enum|union|inline|packed)[\w\s*\[\]]*?"
    pattern = rf"^(?:{declared})?\b([a-z_][a-z0-9_]*)\s*(?:=[^=].*)?$"
    return [
        f"line {line_of(source.code, found.start())}: module state {found[1]!r}"
        for found in re.finditer(pattern, source.code, re.MULTILINE)
        if "=" in found[0] or found[0].startswith("cdef")
    ]


# --- size and manners -----------------------------------------------------------------------------

FILE_CAP = 500
FUNCTION_CAP = 60


def file_is_short(source: Source) -> list[str]:
    count = source.text.count("\n")
    return [f"{count} lines, at most {FILE_CAP}: give part of its job to another file"] if count > FILE_CAP else []


def functions_are_short(source: Source) -> list[str]:
    return [
        f"line {line}: {name} has {length} lines, at most {FUNCTION_CAP} (`# long: why` on its first line exempts)"
        for line, name, length, exempt in functions(source)
        if length > FUNCTION_CAP and not exempt
    ]


def starts_with_docstring(source: Source) -> list[str]:
    first = re.sub(r"\A(?:\s*#[^\n]*\n)*\s*", "", source.text)
    return [] if first.startswith(('"""', "'''")) else ["no docstring that states the file's single job"]


def no_unfinished_marks(source: Source) -> list[str]:
    marks = "|".join(("TO" + "DO", "FIX" + "ME", "X" * 3))
    return [
        f"line {line_of(source.text, found.start())}: {found[0]}: do it, or file an issue"
        for found in re.finditer(rf"\b(?:{marks})\b", source.text)
    ]


def no_machine_paths(source: Source) -> list[str]:
    pattern = r"(?<![\w.])/(?:work|home|root|Users)/\w+|\.pyen[v]\b|/opt/(?:wheels|pypi)\b|/tmp/bash_job[s]"
    return [
        f"line {line_of(source.text, found.start())}: {found[0]} exists on one machine only"
        for found in re.finditer(pattern, source.text)
    ]


# --- the data plane -------------------------------------------------------------------------------


def nogil_says_noexcept(source: Source) -> list[str]:
    """Without noexcept, every call takes the GIL to look for an exception: 50 times slower, and silently."""
    if not source.is_cython:
        return []
    pattern = r"^\s*cdef\s[^\n(]*\([^)]*(?:\([^)]*\)[^)]*)*\)([^\n:]*)"
    return [
        f"line {line_of(source.code, found.start())}: nogil without noexcept"
        for found in re.finditer(pattern, without_extern(source.code), re.MULTILINE)
        if "nogil" in found[1] and "noexcept" not in found[1]
    ]


def no_old_cython(source: Source) -> list[str]:
    pattern = r"^\s*(?:DEF\s|IF\s|include\s)"
    return [
        f"line {line_of(source.code, found.start())}: {found[0].strip()}: use an enum, a C macro or a .pxd"
        for found in re.finditer(pattern, source.code if source.is_cython else "", re.MULTILINE)
    ]


# Calls that make descriptors, and what must stand in their arguments.
_C_MAKERS = {"accept4", "socket", "socketpair", "pipe2", "epoll_create1", "memfd_create", "eventfd", "timerfd_create"}
_C_MAKERS |= {"signalfd", "open", "openat", "recvmsg", "dup3"}
_C_LEAKS = {"accept", "pipe", "dup", "dup2", "epoll_create", "fopen"}


def closes_on_exec(source: Source) -> list[str]:
    return _python_closes_on_exec(source) if source.is_python else _c_closes_on_exec(source)


def _c_closes_on_exec(source: Source) -> list[str]:
    code = without_extern(source.code)
    faults = []
    for found in re.finditer(r"(?<![\w.])(?:c_)?(\w+)\(([^()]*(?:\([^()]*\)[^()]*)*)\)", code):
        if found[1] in _C_LEAKS:
            faults.append(f"line {line_of(code, found.start())}: {found[1]}() makes a descriptor that exec inherits")
        elif found[1] in _C_MAKERS and "CLOEXEC" not in found[2]:
            faults.append(f"line {line_of(code, found.start())}: {found[1]}() without CLOEXEC")
    return faults


# Python's own calls close on exec unless flags are given (PEP 446); these take the caller's flags as they are.
_PYTHON_FLAGS = {"os.pipe2": 1, "os.eventfd": 2, "os.memfd_create": 2, "socket.recv_fds": 4}


def _python_closes_on_exec(source: Source) -> list[str]:
    faults = []
    for call, around in _calls_within(source.tree, ""):
        name, text = ast.unparse(call.func), ast.unparse(call)
        count = len(call.args) + len(call.keywords)
        flags_given = name in _PYTHON_FLAGS and count >= _PYTHON_FLAGS[name]
        if name.endswith("set_inheritable") or "inheritable=True" in text:
            faults.append(f"line {call.lineno}: {text}: descriptors are handed over by name, never inherited by exec")
        elif name == "os.dup2" and count < 3 and not re.search(r"\bstd(in|out|err)\b|, [012]\)", text):
            faults.append(f"line {call.lineno}: os.dup2 without inheritable=False")
        elif "CLOEXEC" in around:
            continue  # the flags may have been put together before the call
        elif flags_given or name == "socket.recv_fds":
            faults.append(f"line {call.lineno}: {name} without CLOEXEC in its flags")
        elif name.endswith(".recvmsg") and count > 1:
            faults.append(f"line {call.lineno}: recvmsg without MSG_CMSG_CLOEXEC")
    return faults


def _calls_within(tree: ast.AST, around: str) -> Iterator[tuple[ast.Call, str]]:
    """Every call, with the text of the innermost function that holds it."""
    for part in ast.iter_child_nodes(tree):
        if isinstance(part, ast.Call):
            yield part, around or ast.unparse(part)
        inner = ast.unparse(part) if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef) else around
        yield from _calls_within(part, inner)
