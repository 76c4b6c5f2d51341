"""Keys: one type that prints as stars, so that no log, trace or error message can carry one.

A key is named by its environment variable and read from it at every call, so a rotated key is
picked up and none is kept. `Secret.reveal` is called by clients alone, when they build a header.
"""

import os
from base64 import b64encode
from typing import Final, NoReturn
from urllib.parse import quote

from r2reasoner.errors import ConfigError

STARS: Final = "***"
MIN_PART: Final = 4


class Secret:
    """A key that shows itself only when asked by name."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    @classmethod
    def from_environment(cls, variable: str, *, needed_by: str) -> "Secret":
        """Read a key. Raises ConfigError naming the variable when it is missing or unusable."""
        value = os.environ.get(variable, "").strip()
        if not value:
            raise ConfigError(
                f"{needed_by} needs a key: set the environment variable {variable} (it is "
                f"{'blank' if variable in os.environ else 'not set'})"
            )
        if not (value.isascii() and value.isprintable()):
            raise ConfigError(
                f"the environment variable {variable} holds characters that no key has: "
                "expected printable ASCII on one line"
            )
        return cls(value)

    def reveal(self) -> str:
        """Return the key itself."""
        return self._value

    def redact(self, text: str) -> str:
        """Return a text with the key in it, raw, URL-encoded or in base64, put as stars.

        So is the beginning of a key at the text's end, which a cut may have left there.
        """
        raw = self._value
        for form in (raw, quote(raw, safe=""), b64encode(raw.encode()).decode()):
            text = text.replace(form, STARS)
            for length in range(min(len(form), len(text)), MIN_PART - 1, -1):
                if text.endswith(form[:length]):
                    text = text[:-length] + STARS
                    break
        return text

    def __repr__(self) -> str:
        return f"Secret({STARS})"

    def __str__(self) -> str:
        return STARS

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is not written anywhere")
