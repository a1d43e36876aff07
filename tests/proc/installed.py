"""A copy of the program that a running lbfast is imported from, in which another version can be put in its place."""

from __future__ import annotations

import shutil
import textwrap
from pathlib import Path

from harness import ROOT


class Installed:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env = {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
        shutil.copytree(ROOT / "lbfast", folder / "lbfast", symlinks=True, ignore=shutil.ignore_patterns("*.c"))

    def version(self, text: str) -> None:
        path = self.folder / "lbfast" / "__init__.py"
        path.write_text(path.read_text().replace('__version__ = "', f'__version__ = "{text}+', 1))

    def edit(self, file: str, old: str, new: str) -> None:
        path = self.folder / "lbfast" / file
        before = path.read_text()
        assert old in before
        path.write_text(before.replace(old, new, 1))

    def kill_once(self, file: str, line: str, *, after: bool = False, victim: str = "os.getpid()") -> Path:
        """Before this line, or after it, the victim is killed by SIGKILL, once, as soon as the file returned is there.

        It is gone then.  A trial comes through unharmed.
        """
        mark = self.folder / f"kill-{len(list(self.folder.glob('kill-*')))}"
        self.folder.chmod(0o777)  # another user may have to remove it
        indent = line[: len(line) - len(line.lstrip())]
        code = textwrap.indent(
            textwrap.dedent(f"""\
                import os
                if "LBFAST_TRIAL_STATE" not in os.environ and os.path.exists({str(mark)!r}):
                    os.unlink({str(mark)!r})
                    os.kill({victim}, 9)
                """),
            indent,
        )
        self.edit(file, line, f"{line}{code}" if after else f"{code}{line}")
        return mark
