"""Turns that need no plan: greetings, thanks, farewells, acknowledgements, in many languages.

A turn is trivial only where every word of it is known small talk: an unknown word, a digit, a
question mark, a line break or any sign of code makes it work. So what is not foreseen is planned as
ever; the price is that some small talk is planned too. `ok` is work where the answer before it
asked something, since it may be the go-ahead. Assents (yes), denials and `continue` are always
work. Pure functions; who answers a trivial turn is not decided here.
"""

import re
import tomllib
import unicodedata
from collections.abc import Mapping, Sequence
from enum import StrEnum
from importlib.resources import files
from typing import Final

from r2reasoner.types import Message

MOST_CHARACTERS: Final = 80
MOST_PHRASES: Final = 6
ENDING: Final = 300
"""So many characters at the end of an answer are looked through for a question."""


class Kind(StrEnum):
    """What a phrase of small talk does, as `trivial.toml` names it."""

    GREETING = "greeting"
    THANKS = "thanks"
    FAREWELL = "farewell"
    ACKNOWLEDGEMENT = "acknowledgement"
    BESIDE = "beside"


_FRIENDLY: Final = frozenset("👍👌🙏👋🙂😊😀😃😄😁😂🤣😅😉😍🥰❤♥💯🎉✨🙌👏💪🤝")
_UNSEEN: Final = re.compile("[\u200d\ufe0e\ufe0f\U0001f3fb-\U0001f3ff]")
"""Joiners, variation selectors and skin tones, which come with emojis."""
_SMILEY: Final = re.compile(r"(?<![^\s.,!])[:;]-?[)dp](?!\S)", re.IGNORECASE)
_APOSTROPHE: Final = re.compile("['’`´](?=\\w)")
_LONG_DRAWN: Final = re.compile(r"(.)\1{2,}")
_BREAKS: Final = re.compile(r"[ .,!;:…\-–—~。，！、；・～¡]+")
_BY_CHARACTER: Final = re.compile("([\u3040-\u30ff\u3400-\u9fff])")
"""Scripts that are written without spaces: each character is a word."""
_ASKS: Final = re.compile(r"[?？؟⸮՞]|か[。」]?\s*$")


def is_trivial(text: str, earlier: Sequence[Message] = ()) -> bool:
    """Tell whether a turn is small talk, after what was said before it.

    Nothing is trivial behind a turn of the user's that has no answer yet. Where there are
    instructions and no answer so far, only a greeting is: they may make a task of every text.
    """
    kinds = _kinds(text)
    if kinds is None:
        return False
    said = [turn for turn in earlier if turn.role != "system"]
    if not said:
        return not earlier or kinds <= {Kind.GREETING, Kind.BESIDE}
    if said[-1].role == "user":
        return False
    return Kind.ACKNOWLEDGEMENT not in kinds or not _asks(said[-1].content)


def _asks(answer: str) -> bool:
    return _ASKS.search(answer[-ENDING:]) is not None


def _kinds(text: str) -> frozenset[Kind] | None:
    """Return what the phrases of a text do; None where some of it is no known phrase."""
    text = text.strip()
    if not text or len(text) > MOST_CHARACTERS:
        return None
    text = _UNSEEN.sub("", _SMILEY.sub(" ", text))
    signs = [c for c in text if c in _FRIENDLY]
    words = _words("".join(" " if c in _FRIENDLY else c for c in text))
    kinds: set[Kind] = {Kind.ACKNOWLEDGEMENT} if signs and not words else set()
    at, phrases = 0, 0
    while at < len(words):
        length, kind = _longest(words, at)
        phrases += 1
        if kind is None or phrases > MOST_PHRASES:
            return None
        kinds.add(kind)
        at += length
    return frozenset(kinds) if kinds - {Kind.BESIDE} else None


def _longest(words: Sequence[str], at: int) -> tuple[int, Kind | None]:
    for length in range(min(_LONGEST, len(words) - at), 0, -1):
        kind = _KNOWN.get(tuple(words[at : at + length]))
        if kind is not None:
            return length, kind
    return 0, None


def _words(text: str) -> list[str]:
    """Return a text's words without case, accents, punctuation and drawn-out letters."""
    plain = unicodedata.normalize("NFKD", text).casefold()
    plain = "".join(c for c in plain if unicodedata.category(c) != "Mn")
    plain = _LONG_DRAWN.sub(r"\1", _APOSTROPHE.sub("", plain))
    apart = _BREAKS.sub(" ", _BY_CHARACTER.sub(r" \1 ", plain))
    return [word for word in apart.split(" ") if word]


def _known() -> Mapping[tuple[str, ...], Kind]:
    text = files(__package__).joinpath("trivial.toml").read_text(encoding="utf-8")
    return {
        tuple(_words(phrase)): Kind(kind)
        for kind, phrases in tomllib.loads(text).items()
        for phrase in phrases.replace("\n", " ").split(",")
    }


_KNOWN: Final = _known()
_LONGEST: Final = max(map(len, _KNOWN))
