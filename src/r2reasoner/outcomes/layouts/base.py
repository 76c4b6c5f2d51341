"""What a layout is, and what its rows are made into.

The key of an imported answer is made of what was asked of whom (and of which sample it is), so
that the same row imported twice is one answer, and another verdict on it is noticed.
"""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any, Final, NamedTuple, TypeAlias

from r2reasoner.outcomes.records import Answered, Outcome, Record, Row, content_id
from r2reasoner.pool.cards import Price
from r2reasoner.types import Pico, Role, Usage, to_pico

Grade: TypeAlias = Callable[[str, str], bool | None]
"""(answer, gold) -> right, wrong, or None where it cannot be decided."""

IMPORTED: Final = "import-"
"""How the keys of imported answers begin."""
CHARACTERS_PER_TOKEN: Final = 4
TOKENS_PER_WORD: Final = 4 / 3
"""Rules of thumb for English, used wherever a source recorded no tokens."""


class Context(NamedTuple):
    """What a row's records may need beside the row.

    `written_at` is when its file was written (seconds since 1970), for rows that say no time;
    `beside` the rows of the layout's other files, by their name in the layout.
    """

    written_at: float
    beside: Mapping[str, Sequence[Row]]
    grade: Grade | None = None


class Skipped(NamedTuple):
    """A row, or a part of one, that is no outcome, and why; counted and said."""

    why: str


Found: TypeAlias = Record | Skipped


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """A kind of file: the fields that its rows have, and what one row says.

    `records` raises ValueError, KeyError or TypeError for a row that is none. `beside` are files
    of the same folder that hold no outcomes, by the fields of their rows. `complete`: every item
    was judged for the same models, so a model missing from one is an error. `folder` is what
    layouts share that stand in one folder. `run`: what a file is a run of, by its first row; of
    several runs of one thing the last by file name counts.
    """

    fields: frozenset[str]
    records: Callable[[Row, Context], Iterable[Found]]
    folder: str
    beside: Mapping[str, frozenset[str]] = field(default_factory=dict)
    complete: bool = False
    run: Callable[[Row], tuple[str, ...]] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One answer of one model to one item, and its verdict, as a source recorded them.

    `sample` tells apart several answers of one model to one text. `item` is the text whose hash
    is the item's id, where that is not `text`; `assistant` what stands after the question in the
    prompt (a plan's steps). `cost` is in pico-dollars, `price` what it was made with.
    """

    source: str
    text: str
    model: str
    score: float | None
    at: float
    group: str | None = None
    sample: str = ""
    plan: str | None = None
    subtask: int | None = None
    assistant: str | None = None
    answer: str | None = None
    usage: Usage | None = None
    cost: Pico | None = None
    price: Price | None = None
    latency_s: float | None = None

    def records(self) -> tuple[Answered, Outcome]:
        """Return the two records of it."""
        item = content_id(self.text)
        place = [self.source, item, self.plan, self.subtask, self.model, self.sample]
        key = f"{IMPORTED}{content_id(json.dumps(place))}"
        messages = [{"role": "user", "content": self.text}]
        if self.assistant is not None:
            messages.append({"role": "assistant", "content": self.assistant})
        answer = Answered(
            key=key,
            model=self.model,
            revision=self.model,
            prompt=json.dumps(messages, ensure_ascii=False),
            answer=self.answer,
            finish_reason=None,
            usage=self.usage,
            cost=self.cost,
            input_price=None if self.price is None else f"{self.price.input:f}",
            output_price=None if self.price is None else f"{self.price.output:f}",
            latency_s=self.latency_s,
            logprob=None,
            source=self.source,
            at=self.at,
            role=Role.WORKER,
        )
        outcome = Outcome(
            item, self.plan, self.subtask, self.model, key, self.score, self.source, self.group
        )
        return answer, outcome


def per_million(dollars: str, source: str, output: str | None = None) -> Price:
    """Return a price in dollars per million tokens, the same for what is read and written."""
    return Price(Decimal(dollars), Decimal(output or dollars), source=source)


def tokens_in(text: str) -> int:
    """Return about how many tokens a text has."""
    return math.ceil(len(text) / CHARACTERS_PER_TOKEN)


def tokens_of_words(words: int) -> int:
    """Return about how many tokens so many words are."""
    return math.ceil(words * TOKENS_PER_WORD)


def text(row: Row, name: str, *, empty: bool = False) -> str:
    """Return a field that is text. Raises ValueError where it is not, or is empty."""
    value = row[name]
    if not isinstance(value, str) or not (empty or value.strip()):
        raise ValueError(f"{name}: expected text, got {_short(value)}")
    return value


def verdict(row: Row, name: str) -> float:
    """Return a field that is true or false as 1 or 0. Raises ValueError where it is neither."""
    value = row[name]
    if not isinstance(value, bool):
        raise ValueError(f"{name}: expected true or false, got {_short(value)}")
    return float(value)


def score(row: Row, name: str, top: float = 1.0) -> float:
    """Return a field that is a score from 0 to `top`. Raises ValueError where it is not."""
    value = number(row, name)
    if not 0 <= value <= top:
        raise ValueError(f"{name}: expected a score from 0 to {top:g}, got {_short(row[name])}")
    return value


def number(row: Row, name: str) -> float:
    """Return a field that is a finite number, or its text (CSV). Raises ValueError."""
    value = row[name]
    try:
        found = float(value) if isinstance(value, int | float | str) else math.nan
    except ValueError:
        found = math.nan
    if isinstance(value, str) and value.strip().lower() in ("true", "false"):
        found = float(value.strip().lower() == "true")
    if not math.isfinite(found):
        raise ValueError(f"{name}: expected a number, got {_short(value)}")
    return found


def count(row: Row, name: str) -> int:
    """Return a field that is a whole number of at least 0. Raises ValueError."""
    value = number(row, name)
    if value < 0 or value != int(value):
        raise ValueError(f"{name}: expected a whole number of at least 0, got {_short(row[name])}")
    return int(value)


def dollars(row: Row, name: str) -> Pico:
    """Return a field that is an amount of dollars, in pico-dollars. Raises ValueError."""
    try:
        amount = Decimal(str(row[name]))
    except InvalidOperation:
        amount = Decimal("nan")
    if isinstance(row[name], bool) or not amount.is_finite() or amount < 0:
        raise ValueError(f"{name}: the price is unknown: expected dollars, got {_short(row[name])}")
    return to_pico(amount)


def object_of(row: Row, name: str) -> Row:
    """Return a field that is an object with at least one entry. Raises ValueError."""
    value = row[name]
    if not isinstance(value, dict) or not value:
        raise ValueError(f"{name}: expected an object, got {_short(value)}")
    return value


def lettered(question: str, options: Sequence[str]) -> str:
    """Return a question with its options, one a line, under the letters A, B, C."""
    return "\n".join([question, *(f"{chr(65 + i)}. {option}" for i, option in enumerate(options))])


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 40 else f"{shown[:39]}…"
