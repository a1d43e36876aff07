"""The program's entry: one command, one exit code."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line of this process and exit with its code."""
    from lbfast.cli.app import main as run

    sys.exit(run())


if __name__ == "__main__":
    main()
