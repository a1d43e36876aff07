"""What can go wrong with a command line, each with its exit code and one clear line."""

from __future__ import annotations

OK = 0
FAILED = 1  # lbfast refused the verb, could not be reached, or ended badly
USAGE = 2  # the command line or the configuration is wrong; nothing was done
TIMED_OUT = 3  # what was waited for did not come in time


class CommandError(Exception):
    """Ends a command: ``str(error)`` goes to stderr, ``code`` is the exit code."""

    code = FAILED


class Refused(CommandError):
    """lbfast understood the verb and did not carry it out, or could not be asked."""

    code = FAILED


class Unavailable(Refused):
    """Nobody answers on the control socket."""


class BadUsage(CommandError):
    """The command line or the configuration is wrong."""

    code = USAGE


class BadConfig(BadUsage):
    """Problems in a configuration file, a line each, beginning with the file's name as editors like it."""
