"""One source file as the source tests see it: text, code without strings, syntax tree, functions, imports."""

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class Source:
    path: str  # from the top of the tree, with /
    text: str

    @property
    def is_python(self) -> bool:
        return self.path.endswith((".py", ".pyi"))

    @property
    def is_cython(self) -> bool:
        return self.path.endswith((".pyx", ".pxd"))

    @property
    def package(self) -> str:
        """`model` for lbfast/model/state.py, `_stick` for lbfast/_stick.pyx."""
        return family(self.path.removeprefix("lbfast/").split("/")[0].rsplit(".", 1)[0])

    @cached_property
    def code(self) -> str:
        """The text with strings and comments blanked, line by line as before."""
        return STRINGS_AND_COMMENTS.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), self.text)

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, self.path)


Rule = Callable[[Source], list[str]]

STRINGS_AND_COMMENTS = re.compile(
    r"\"\"\"(?:\\.|[^\\])*?\"\"\"|'''(?:\\.|[^\\])*?'''|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'|#[^\n]*", re.DOTALL
)


def family(name: str) -> str:
    """`_stick` for `_stick_lock`."""
    return re.sub(r"^(_[a-z]+)_[a-z_]+$", r"\1", name)


def line_of(text: str, offset: int) -> int:
    return text.count("\n", 0, offset) + 1


def without_extern(code: str) -> str:
    """Blank the `cdef extern from` blocks: what stands there is another library's."""
    out, inside = [], False
    for line in code.split("\n"):
        if line.startswith("cdef extern"):
            inside = True
        elif line.strip() and not line[0].isspace():
            inside = False
        out.append("" if inside else line)
    return "\n".join(out)


def functions(source: Source) -> Iterator[tuple[int, str, int, bool]]:
    """Line, name, length without docstring, exempt; of every function with a body, Python or Cython."""
    lines, code = source.text.split("\n"), source.code.split("\n")
    for index, line in enumerate(code):
        found = re.match(r"(\s*)(?:async\s+)?(?:cdef|cpdef|def)\b[^(=]*?(\w+)\s*\(", line)
        if not found:
            continue
        start, depth = index, 0
        while start < len(code):
            depth += code[start].count("(") - code[start].count(")")
            if depth <= 0:
                break
            start += 1
        if not code[start].rstrip().endswith(":"):
            continue  # a prototype
        end = last = start
        for end in range(start + 1, len(code)):
            if code[end].strip():
                if len(code[end]) - len(code[end].lstrip()) <= len(found[1]):
                    break
                last = end
        exempt = any("# long:" in each for each in lines[index : start + 1])
        yield index + 1, found[2], last - index + 1 - _docstring_length(lines[start + 1 : last + 1]), exempt


def _docstring_length(body: list[str]) -> int:
    text = "\n".join(body)
    found = re.match(r'\s*r?("""|\'\'\').*?\1', text, re.DOTALL)
    return found[0].strip("\n").count("\n") + 1 if found else 0


def imported(source: Source) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything the file imports, anywhere in it."""
    if source.is_cython:
        pattern = r"^\s*(?:from\s+([\w.]+)\s+)?c?import\s+(\([^)]*\)|[\w. ,]+)"
        for found in re.finditer(pattern, source.code, re.MULTILINE):
            names = re.findall(r"([\w.]+)(?:\s+as\s+\w+)?", found[2])
            for name in names:
                yield line_of(source.text, found.start(2)), f"{found[1]}.{name}" if found[1] else name
        return
    for part in ast.walk(source.tree):
        if isinstance(part, ast.Import):
            yield from ((part.lineno, alias.name) for alias in part.names)
        elif isinstance(part, ast.ImportFrom):
            base = part.module if not part.level else f"relative.{part.module or ''}"
            yield from ((part.lineno, f"{base}.{alias.name}") for alias in part.names)
