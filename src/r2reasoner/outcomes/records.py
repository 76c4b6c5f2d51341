"""What a store holds: answers that were paid for (`Answered`), and how they did (`Outcome`).

Both have one flat form, a row, which is what journals, shards and exports are made of.
"""

import math
from dataclasses import dataclass
from hashlib import blake2b
from sys import intern
from typing import Any, Final, TypeAlias

from r2reasoner.types import Pico, Role, Usage

Row: TypeAlias = dict[str, Any]
"""A record as flat JSON values; a shard's row also has the other kind's columns, empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """One answer of one model, and what it cost. What an imported answer lacks is None.

    `key` says what was asked of whom (`keys.answer_key`), `model` is the card's name then,
    `revision` what stood behind it: the weights' sha256, or the model id at its endpoint.
    `prompt` is the messages as JSON text. `cost` is in pico-dollars, prices are dollars per
    million tokens as text, `latency_s` seconds, `at` seconds since 1970. `logprob` is the mean
    log-probability of the answer's tokens; `logprob_asked` is True where it was asked for, so
    that a model that does not tell is not asked again. An answer of "" was empty, and paid for.
    """

    key: str
    model: str
    revision: str
    prompt: str
    answer: str | None
    finish_reason: str | None
    usage: Usage | None
    cost: Pico | None
    input_price: str | None
    output_price: str | None
    latency_s: float | None
    logprob: float | None
    source: str
    at: float
    role: Role
    logprob_asked: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """Which answer stood where, and how it was judged.

    `item` and `plan` are content ids (`content_id`) of the query and the plan, `plan` None where
    there is none; `subtask` None stands for the whole query. `key` is the answer's, `model` the
    name of the card that gave it. `score`: 1 is right, 0 wrong, None was not judged. `source`
    says who judged, and how; `group` is the item's task or domain, where it is known. Raises
    ValueError for a score that is no number.
    """

    item: str
    plan: str | None
    subtask: int | None
    model: str
    key: str
    score: float | None
    source: str
    group: str | None = None

    def __post_init__(self) -> None:
        if self.score is not None and not math.isfinite(self.score):
            raise ValueError(f"a score is a finite number or None, not {self.score}")


Record: TypeAlias = Answered | Outcome

ANSWER: Final = "answer"
OUTCOME: Final = "outcome"
TYPES: Final = {
    "kind": "string",
    "key": "string",
    "model": "string",
    "source": "string",
    "revision": "string",
    "prompt": "string",
    "answer": "string",
    "finish_reason": "string",
    "input_tokens": "int64",
    "output_tokens": "int64",
    "cached_tokens": "int64",
    "reasoning_tokens": "int64",
    "cost": "int64",
    "input_price": "string",
    "output_price": "string",
    "latency_s": "double",
    "logprob": "double",
    "at": "double",
    "role": "string",
    "logprob_asked": "bool",
    "item": "string",
    "plan": "string",
    "subtask": "int64",
    "score": "double",
    "group": "string",
}
"""The columns of a table of rows, by their Arrow types."""

_PYTHON: Final[dict[str, type | tuple[type, ...]]] = {
    "string": str,
    "int64": int,
    "double": (float, int),
    "bool": bool,
}
_COMMON: Final = frozenset({"kind", "key", "model", "source"})
_NEEDED: Final = {
    ANSWER: _COMMON | {"revision", "prompt", "at", "role"},
    OUTCOME: _COMMON | {"item"},
}
_TOKENS: Final = ("input_tokens", "output_tokens", "cached_tokens", "reasoning_tokens")


def content_id(text: str) -> str:
    """Return the id of an item or a plan: a hash of its text, 24 hexadecimal digits."""
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()


def to_row(record: Record) -> Row:
    """Return a record as a row. What UTF-8 cannot hold (lone surrogates) becomes `?`."""
    if isinstance(record, Outcome):
        return {
            "kind": OUTCOME,
            "item": record.item,
            "plan": record.plan,
            "subtask": record.subtask,
            "model": record.model,
            "key": record.key,
            "score": record.score,
            "source": record.source,
            "group": record.group,
        }
    usage = record.usage
    return {
        "kind": ANSWER,
        "key": record.key,
        "model": record.model,
        "revision": record.revision,
        "prompt": _clean(record.prompt),
        "answer": _clean(record.answer),
        "finish_reason": _clean(record.finish_reason),
        "input_tokens": usage.input_tokens if usage else None,
        "output_tokens": usage.output_tokens if usage else None,
        "cached_tokens": usage.cached_tokens if usage else None,
        "reasoning_tokens": usage.reasoning_tokens if usage else None,
        "cost": record.cost,
        "input_price": record.input_price,
        "output_price": record.output_price,
        "latency_s": record.latency_s,
        "logprob": record.logprob,
        "source": record.source,
        "at": record.at,
        "role": record.role.value,
        "logprob_asked": record.logprob_asked,
    }


def from_row(row: Row) -> Record:
    """Return the record of a row that `to_row` made, or that `checked` let through.

    Texts that many records share are kept once.
    """
    if row["kind"] == OUTCOME:
        return Outcome(
            item=intern(row["item"]),
            plan=_shared(row.get("plan")),
            subtask=row.get("subtask"),
            model=intern(row["model"]),
            key=intern(row["key"]),
            score=row.get("score"),
            source=intern(row["source"]),
            group=_shared(row.get("group")),
        )
    tokens = [row.get(name) for name in _TOKENS]
    return Answered(
        key=intern(row["key"]),
        model=intern(row["model"]),
        revision=intern(row["revision"]),
        prompt=row["prompt"],
        answer=row.get("answer"),
        finish_reason=_shared(row.get("finish_reason")),
        usage=None if tokens[0] is None else Usage(*(count or 0 for count in tokens)),
        cost=row.get("cost"),
        input_price=_shared(row.get("input_price")),
        output_price=_shared(row.get("output_price")),
        latency_s=row.get("latency_s"),
        logprob=row.get("logprob"),
        source=intern(row["source"]),
        at=row["at"],
        role=Role(row["role"]),
        logprob_asked=bool(row.get("logprob_asked")),
    )


def checked(row: Row) -> Row:
    """Return a row from outside if it is one. Raises ValueError that says what is wrong with it."""
    needed = _NEEDED.get(row.get("kind", ""))
    if needed is None:
        raise ValueError(f"expected kind {ANSWER!r} or {OUTCOME!r}, got {row.get('kind')!r}")
    if missing := sorted(name for name in needed if row.get(name) is None):
        raise ValueError(f"without {', '.join(missing)}")
    for name, value in row.items():
        if name not in TYPES:
            raise ValueError(f"unknown field {name!r}; known: {', '.join(TYPES)}")
        _check_type(name, value)
    return row


def _check_type(name: str, value: Any) -> None:
    kind = TYPES[name]
    fits = isinstance(value, _PYTHON[kind]) and isinstance(value, bool) == (kind == "bool")
    if value is not None and not fits:
        raise ValueError(f"{name}: expected {kind}, got {str(value)[:40]!r}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name}: expected a finite number, got {value}")
    if kind == "int64" and value is not None and not 0 <= value < 2**63:
        raise ValueError(f"{name}: expected a whole number of at least 0, got {value}")


def _shared(text: str | None) -> str | None:
    return None if text is None else intern(text)


def _clean(text: str | None) -> str | None:
    if text is None or text.isascii():
        return text
    return text.encode("utf-8", "replace").decode()
