"""Draws the election table: the picture and the rows of docs/ha.md, made from the table itself."""

from __future__ import annotations

import sys
from pathlib import Path

from lbfast.ha.election import ANY, TABLE, Row, Standing

BEGIN, END = "<!-- the table: begin -->", "<!-- the table: end -->"


def render_page() -> str:
    """The picture (Mermaid) and the rows, as Markdown."""
    return f"```mermaid\n{render_picture()}```\n\n{render_rows()}"


def render_picture() -> str:
    """One arrow for each way between two standings, with the peers that it can be seen with."""
    lines = ["stateDiagram-v2", "    [*] --> passive"]
    for standing, rows in TABLE.items():
        for then in Standing:
            peers = [peer.value for row in rows if row.then is then for peer in row.peers]
            if peers:
                lines.append(f"    {_name(standing)} --> {_name(then)}: peer {', '.join(dict.fromkeys(peers))}")
    return "\n".join(lines) + "\n"


def render_rows() -> str:
    """Every row, in the order in which they are tried."""
    lines = ["| this box is | the peer is | and | it becomes | because |", "|---|---|---|---|---|"]
    for standing, rows in TABLE.items():
        lines += [f"| {_name(standing)} | {_peers(row)} | {_conditions(row)} | {_then(row)} |" for row in rows]
    return "\n".join(lines) + "\n"


def write_page(path: Path) -> None:
    """Replace what stands between the marks."""
    text = path.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    path.write_text(f"{before}{BEGIN}\n{render_page()}{END}{after}")


def _name(standing: Standing) -> str:
    return standing.name.lower()


def _peers(row: Row) -> str:
    return "anything" if row.peers == ANY else ", ".join(peer.value for peer in row.peers)


def _conditions(row: Row) -> str:
    return ", ".join(f"`{name}`" for name in row.when)


def _then(row: Row) -> str:
    return f"{_name(row.then)} | {row.because}"


if __name__ == "__main__":
    write_page(Path(sys.argv[1]))
