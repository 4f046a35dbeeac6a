"""The project's exceptions, and how a command ends with one."""

from __future__ import annotations

import sys


class UserError(ValueError):
    """A mistake of the user's: the message says name, value, limit and remedy; commands exit with code 2."""


class Unavailable(Exception):
    """A source of data did not deliver; the message is the reason."""


def fail(error: Exception) -> None:
    """Print a user's mistake and leave with exit code 2."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    if len(lines) > 1:
        print(f"pnn: {len(lines)} mistakes", file=sys.stderr)
    for line in lines:
        print(f"pnn: {line}" if len(lines) == 1 else f"  - {line}", file=sys.stderr)
    sys.exit(2)
