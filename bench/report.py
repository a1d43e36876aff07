"""From a file of samples to tables on the screen, a Markdown file, pictures and, if asked, docs/performance.md.

python -m bench.report RESULTS.jsonl [--doc]
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
if __package__ in (None, ""):  # run as a file
    sys.path.insert(0, str(TOP))

from bench.charts import draw_all  # noqa: E402
from bench.figures import Figures  # noqa: E402
from bench.tables import everything  # noqa: E402

DOC = TOP / "docs/performance.md"
BEGIN, END = "<!-- figures: bench/report.py writes from here -->", "<!-- to here -->"


def put_between(text: str, figures: str) -> str:
    """The page with what lies between the marks replaced."""
    if BEGIN not in text or END not in text:
        raise ValueError(f"{DOC}: expected the lines {BEGIN!r} and {END!r}, found not both")
    pattern = re.escape(BEGIN) + ".*?" + re.escape(END)
    return re.sub(pattern, lambda _: f"{BEGIN}\n\n{figures}\n{END}", text, flags=re.DOTALL)


def write(results: Path, folder: Path, with_doc: bool = False) -> None:
    """Print the tables, write them beside the samples, draw the pictures."""
    figures = Figures.of_lines(results.read_text().splitlines())
    if not figures.samples:
        sys.exit(f"bench: {results} holds no sample")
    text = everything(figures)
    print(text)
    results.with_suffix(".md").write_text(text)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        drawn = draw_all(figures, folder)
    except ImportError as error:
        print(f"left out: pictures: {error} (the bench extra has matplotlib)")
        drawn = []
    for path in drawn:
        print(path)
    if with_doc:
        pictures = DOC.parent / "performance"
        pictures.mkdir(exist_ok=True)
        for path in drawn:
            shutil.copyfile(path, pictures / path.name)
        DOC.write_text(put_between(DOC.read_text(), text))
        print(f"{DOC} written")


def main(words: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description="Tables and pictures from a file of samples.")
    parser.add_argument("results", type=Path)
    parser.add_argument("--doc", action="store_true", help="also put them into docs/performance.md")
    args = parser.parse_args(words)
    write(args.results, TOP / "bench/results", args.doc)


if __name__ == "__main__":
    main(sys.argv[1:])
