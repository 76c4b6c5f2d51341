"""How commands end, other than by 0 for done and 1 for an error."""

from typing import Final

INTERRUPTED: Final = 130
"""The exit code after Ctrl-C, as a shell has it."""
