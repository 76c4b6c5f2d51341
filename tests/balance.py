"""What must be equal after a load: ledger, the provider's books, keys, what clients were told."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final, TypeAlias

from sqlalchemy import ColumnElement, func, select

from load import End, Provider
from r2reasoner.ledger import Entry, Ledger
from r2reasoner.mock import BookEnd, BookEntry, Fault
from r2reasoner.tables import COUNTERS, ENTRIES, HOLDS, REQUESTS
from r2reasoner.types import CallOutcome, Pico, Usage, to_dollars

UNCLEAR: Final = frozenset(
    {
        *(Fault.RESET_BEFORE_HEADERS, Fault.NO_DONE, Fault.NO_FINISH_REASON, Fault.HTML),
        *(Fault.TRUNCATED_JSON, Fault.GARBAGE_JSON, Fault.INVALID_UTF8, Fault.ERROR_IN_200),
        *(Fault.MISSING_USAGE, Fault.NEGATIVE_USAGE),
    }
)
"""Faults of whole answers that do not say, or not credibly, what they cost."""

Said: TypeAlias = tuple[str | None, str | None, Usage]
"""What both books know of a call: model, role, tokens billed."""


def check_ends(ends: Sequence[End], *, dying: bool = False) -> None:
    """Everybody who stayed has a whole answer or an error as OpenAI writes it, none of it ours.

    A gateway that is `dying` may close a connection on which it has not begun to answer.
    """
    for end in ends:
        if end.left or (dying and end.broken and end.status is None):
            continue
        assert not end.broken, end
        assert end.whole != (end.error is not None), end
        if end.error is not None:
            assert end.error.keys() >= {"message", "type", "param", "code"}, end
            assert isinstance(end.error["message"], str), end
            assert isinstance(end.error["type"], str), end
            assert end.error["code"] != "internal_error", end


def check_costs(ends: Iterable[End], entries: Iterable[Entry]) -> None:
    """Every answer said that it cost what its ledger entries say."""
    costs: Counter[str | None] = Counter()
    for entry in entries:
        costs[entry.query_id] += entry.cost or 0
    for end in ends:
        if end.whole:
            assert end.cost == to_dollars(costs[end.trace_id])


def check_books(provider: Provider, entries: Sequence[Entry], ends: Iterable[End]) -> None:
    """Both books are equal in every call for a client who stayed.

    Of the others a call may have been broken off after its entry was made, on its way there or
    back: it is charged at its bound, or not at all where it was never sent.
    """
    stayed = {end.wanted.number: end.trace_id for end in ends if not end.left_off}
    traces = set(stayed.values())
    ours: tuple[list[Entry], list[Entry]] = ([], [])
    theirs: tuple[list[BookEntry], list[BookEntry]] = ([], [])
    for entry in entries:
        ours[entry.query_id in traces].append(entry)
    for book in provider.books:
        theirs[provider.request_of[book.number] in stayed].append(book)
    _compare(ours[True], theirs[True], certain=True)
    _compare(ours[False], theirs[False], certain=False)


def check_broken_off(books: Sequence[BookEntry], entries: Sequence[Entry]) -> None:
    """Nothing is in the books of a provider that ours have less of, whoever died when."""
    _compare(entries, books, certain=False)


def _compare(entries: Sequence[Entry], books: Sequence[BookEntry], *, certain: bool) -> None:
    told: Counter[Said] = Counter()
    guessed: dict[tuple[str | None, str | None], list[Entry]] = {}
    for entry in entries:
        assert entry.outcome is not CallOutcome.OPEN
        assert entry.price is not None
        if _at_the_bound(entry):
            assert entry.cost == entry.bound
            guessed.setdefault((entry.model, entry.role.value), []).append(entry)
        elif "before dispatch" in (entry.error or ""):
            assert (entry.cost, certain) == (0, False)
        else:
            assert entry.cost == entry.price.cost(entry.usage)
            told[entry.model, entry.role.value, entry.usage] += 1
    billed = Counter(_said(book) for book in books)
    assert told <= billed, told - billed
    rest = billed - told
    if certain:
        unclear = (b for b in books if b.end is not BookEnd.WHOLE or b.fault in UNCLEAR)
        assert rest <= Counter(map(_said, unclear))
    counts: Counter[tuple[str | None, str | None]] = Counter()
    tokens: Counter[tuple[str | None, str | None]] = Counter()
    for (model, role, usage), count in rest.items():
        counts[model, role] += count
        tokens[model, role] += count * (usage.input_tokens + usage.output_tokens)
    held = Counter({which: len(its) for which, its in guessed.items()})
    assert counts == held if certain else counts <= held, (counts, held)
    for which, most in tokens.items():
        assert most <= sum(e.usage.input_tokens + e.usage.output_tokens for e in guessed[which])


def _said(book: BookEntry) -> Said:
    return book.model, book.role, book.usage


def _at_the_bound(entry: Entry) -> bool:
    return entry.outcome is CallOutcome.UNKNOWN or "bound charged" in (entry.note or "")


def spent_by_keys(ledger: Ledger) -> Counter[str]:
    """Return what each key was charged, in pico-dollars, over all days."""
    days = func.length(COUNTERS.c.period) == len("2000-01-01")
    chosen = select(COUNTERS.c.key_id, COUNTERS.c.spent).where(days)
    spent: Counter[str] = Counter()
    with ledger.reading() as connection:
        for key_id, amount in connection.execute(chosen):
            spent[key_id] += amount
    return spent


def owed_by_keys(ledger: Ledger, entries: Iterable[Entry]) -> Counter[str]:
    """Return what the ledger says of each key's requests, in pico-dollars."""
    with ledger.reading() as connection:
        rows = connection.execute(select(REQUESTS.c.trace_id, REQUESTS.c.key_id)).all()
    owner = {row.trace_id: row.key_id for row in rows}
    owed: Counter[str] = Counter()
    for entry in entries:
        if entry.query_id in owner:
            owed[owner[entry.query_id]] += entry.cost or 0
    return owed


def check_keys(ledger: Ledger, entries: Iterable[Entry], budgets: dict[str, Pico]) -> None:
    """Each key was charged what the ledger says, holds nothing, and is within its budget."""
    spent = spent_by_keys(ledger)
    assert +spent == +owed_by_keys(ledger, entries)
    for key_id, budget in budgets.items():
        assert spent[key_id] <= budget
    with ledger.reading() as connection:
        assert connection.execute(select(HOLDS)).all() == []
        assert connection.execute(select(COUNTERS).where(COUNTERS.c.held != 0)).all() == []


def open_calls(ledger: Ledger) -> int:
    """Return how many calls are open."""
    return _count(ledger, ENTRIES.c.outcome == CallOutcome.OPEN.value)


def unsettled(ledger: Ledger) -> int:
    """Return how many calls are open and how many holds there are."""
    return open_calls(ledger) + _count(ledger, HOLDS.c.id.is_not(None))


def _count(ledger: Ledger, which: ColumnElement[bool]) -> int:
    with ledger.reading() as connection:
        return int(connection.execute(select(func.count()).where(which)).scalar_one())
