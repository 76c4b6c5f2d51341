"""Every error the package raises on purpose.

    R2Error
    └── UnknownWords
"""

from collections.abc import Sequence


class R2Error(Exception):
    """Base of all errors raised on purpose; its text is fit to show to a user."""


class UnknownWords(R2Error):
    """A text has words outside a nano model's vocabulary."""

    def __init__(self, words: Sequence[str]) -> None:
        super().__init__(f"words outside the nano vocabulary: {', '.join(words[:8])}")
        self.words = tuple(words)
