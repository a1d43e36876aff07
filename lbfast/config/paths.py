"""Where a running lbfast keeps its things: the runtime directory and the state directory."""

from __future__ import annotations

import os
from pathlib import Path

RUNTIME_VARIABLE = "LBFAST_RUNTIME_DIR"
STATE_VARIABLE = "LBFAST_STATE_DIR"

# sockaddr_un holds 108 bytes with the closing zero.
_LONGEST_SOCKET_PATH = 107


class PlaceError(Exception):
    """A directory or path that cannot be used, with what to do about it."""


def runtime_dir() -> Path:
    """Sockets and locks of the running program; absolute."""
    return _place(RUNTIME_VARIABLE, "/run/lbfast")


def state_dir() -> Path:
    """What must survive a restart; absolute."""
    return _place(STATE_VARIABLE, "/var/lib/lbfast")


def control_socket() -> Path:
    """The control socket; PlaceError when the kernel would not take so long a path."""
    path = runtime_dir() / "control.sock"
    if (length := len(os.fsencode(path))) > _LONGEST_SOCKET_PATH:
        raise PlaceError(
            f"{path}: found a socket path of {length} bytes, expected at most {_LONGEST_SOCKET_PATH}: "
            f"set {RUNTIME_VARIABLE} to a shorter directory"
        )
    return path


def ensure_dir(path: Path, mode: int, variable: str) -> None:
    """Make a directory (and its parents) unless it is there, and see that it can be written to.

    ``variable`` is the environment variable that moves it, for the message of the PlaceError.
    An existing directory keeps its mode: it is the operator's.
    """
    try:
        path.mkdir(mode=mode, parents=True, exist_ok=True)
    except FileExistsError:
        raise PlaceError(f"{path}: found something that is not a directory, expected a directory") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise PlaceError(f"{path} cannot be made: {str(reason).lower()}; {_advice(variable)}") from None
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK, effective_ids=True):
        raise PlaceError(f"{path} cannot be written to by user {os.geteuid()}; {_advice(variable)}")


def _place(variable: str, default: str) -> Path:
    return Path(os.path.abspath(os.environ.get(variable) or default))


def _advice(variable: str) -> str:
    return f"run as root, or set {variable} to a directory of your own"
