"""A sample of logged requests, really asked: the router, the model in use today, and the judge.

Each request becomes one row, written when all of its calls are done, so that none is half judged;
what a cap or a kill cuts off is asked again, the rest never. Rows hold verdicts, costs and the
models that answered, but no text. What is asked at all stands in the ledger like any other query.
"""

import asyncio
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Final

from r2reasoner import __version__, prompts
from r2reasoner.budget import Meter
from r2reasoner.client import Client
from r2reasoner.config import Settings
from r2reasoner.errors import ConfigError, DataError, UnknownWords
from r2reasoner.evaluation.provenance import pool_digest
from r2reasoner.evaluation.spending import CapReached, SpendingLedger
from r2reasoner.ledger import new_id
from r2reasoner.pool.cards import Card, Pool
from r2reasoner.router import Router
from r2reasoner.savings.logs import Logged
from r2reasoner.savings.today import card_of
from r2reasoner.savings.verdict import Judge
from r2reasoner.strategies import StrategyContext, open_strategy
from r2reasoner.types import AnswerStatus, Pico, Trace

IN_FLIGHT: Final = 8
WHOLE: Final = (AnswerStatus.COMPLETE, AnswerStatus.CHEAP_FINISH)
_NO_ANSWER: Final = "no answer"


@dataclass(frozen=True, slots=True)
class SampleRow:
    """One sampled request. Costs are pico-dollars (None: unknown), verdicts as `verdict.Judge`.

    `again` is the model in use today, asked once more, where the pool has it: how often it differs
    from itself. `failed`: the router gave no whole answer, which is never as good.
    """

    context: str
    id: str
    cost: Pico | None
    judge_cost: Pico | None
    as_good: bool | None
    by: str
    failed: bool
    models: dict[str, int]
    again_cost: Pico | None = None
    again_as_good: bool | None = None
    again_by: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How a sample is drawn and asked. `scorer` and `judge` are names, for the rows' context."""

    pool: Pool
    settings: Settings
    scorer: str
    judge: str | None
    seed: int = 0

    def context(self) -> str:
        """Return the hash of all that a row depends on."""
        plain = asdict(replace(self.settings, pool=None, max_cost=None))
        about = [plain, pool_digest(self.pool), self.scorer, self.judge, __version__]
        text = json.dumps([*about, prompts.digest()], default=str, sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def drawn(requests: Sequence[Logged], count: int, seed: int) -> list[Logged]:
    """Return a sample; a larger one has the smaller one in it."""

    def order(request: Logged) -> bytes:
        return hashlib.blake2b(f"{seed} {request.id}".encode(), digest_size=16).digest()

    return sorted(requests, key=order)[:count]


class Samples:
    """The rows of a file, and a way to append more. Raises DataError for a line that is no row."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.rows: dict[tuple[str, str], SampleRow] = {}
        self._whole = 0
        if file.exists():
            self._read()

    def add(self, row: SampleRow) -> None:
        """Write a row, whole. Raises ConfigError."""
        line = (json.dumps(asdict(row)) + "\n").encode()
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with self.file.open("ab") as stream:
                stream.truncate(self._whole)
                stream.write(line)
        except OSError as error:
            raise ConfigError(f"{self.file}: cannot be written: {error.strerror}") from error
        self._whole += len(line)
        self.rows[row.context, row.id] = row

    def _read(self) -> None:
        try:
            raw = self.file.read_bytes()
        except OSError as error:
            raise ConfigError(f"{self.file}: cannot be read: {error.strerror}") from error
        *lines, _torn = raw.split(b"\n")
        for number, line in enumerate(lines, 1):
            row = _row(f"{self.file}:{number}", line)
            self.rows[row.context, row.id] = row
            self._whole += len(line) + 1


def _row(where: str, line: bytes) -> SampleRow:
    names = {field.name for field in fields(SampleRow)}
    try:
        row = json.loads(line)
        if isinstance(row, dict) and row.keys() == names and isinstance(row["models"], dict):
            return SampleRow(**row)
    except (ValueError, RecursionError):
        pass
    raise DataError(f"{where}: expected a row of `r2reasoner savings`; repair it, or move it away")


class Sampler:
    """Asks requests of a sample that have no row yet, many at once, under the ledger's cap."""

    def __init__(self, terms: Terms, ledger: SpendingLedger, client: Client, judge: Judge) -> None:
        self.context = terms.context()
        self._pool = terms.pool
        self._ledger = ledger
        self._judge = judge
        self._shared = StrategyContext(
            pool=terms.pool,
            settings=terms.settings,
            ledger=ledger,
            client=client,
            seed=terms.seed,
        )
        self._routers: dict[str, Router] = {}

    async def run(
        self,
        sample: Sequence[Logged],
        samples: Samples,
        say: Callable[[int], None] = lambda done: None,
        in_flight: int = IN_FLIGHT,
    ) -> CapReached | None:
        """Ask what is missing; return what ended it early, if the cap did.

        Raises ConfigError and LedgerError. Rows made till then are in the file.
        """
        todo = [r for r in sample if (self.context, r.id) not in samples.rows]
        queue = iter(todo)
        ends: list[CapReached] = []
        done = len(sample) - len(todo)

        async def work(queue: Iterator[Logged]) -> None:
            nonlocal done
            for request in queue:
                try:
                    samples.add(await self._one(request))
                except CapReached as reached:
                    ends.append(reached)
                if ends:
                    return
                done += 1
                say(done)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(in_flight, len(todo))):
                    group.create_task(work(queue))
        except BaseExceptionGroup as several:
            raise several.exceptions[0] from None
        await self._ledger.flush()
        return ends[0] if ends else None

    async def _one(self, request: Logged) -> SampleRow:
        trace = await self._trace("r2", request)
        meter = Meter(self._ledger, new_id())
        as_good, by = await self._verdict(request, trace, meter)
        row = SampleRow(
            context=self.context,
            id=request.id,
            cost=0 if trace is None else trace.cost(),
            judge_cost=None,
            as_good=as_good,
            by=by,
            failed=by == _NO_ANSWER,
            models=_models(trace),
        )
        card = card_of(request.model, self._pool)
        if card is not None:
            row = await self._again(request, card, row, meter)
        costs = [call.cost for call in meter.calls]
        known = [cost for cost in costs if cost is not None]
        return replace(row, judge_cost=sum(known) if len(known) == len(costs) else None)

    async def _again(self, request: Logged, card: Card, row: SampleRow, meter: Meter) -> SampleRow:
        trace = await self._trace(f"single:{card.name}", request)
        as_good, by = await self._verdict(request, trace, meter)
        cost = 0 if trace is None else trace.cost()
        return replace(row, again_cost=cost, again_as_good=as_good, again_by=by)

    async def _trace(self, strategy: str, request: Logged) -> Trace | None:
        """Return what a strategy made of a request; None where no model has words for it."""
        if strategy not in self._routers:
            self._routers[strategy] = open_strategy(strategy, self._shared)
        query = replace(request.query(), id=new_id())
        limit = self._shared.settings.max_query_bytes
        if len(query.text.encode("utf-8", "replace")) > limit:
            return None
        try:
            return await self._routers[strategy].trace(query)
        except UnknownWords:
            return None

    async def _verdict(
        self, request: Logged, trace: Trace | None, meter: Meter
    ) -> tuple[bool | None, str]:
        if trace is None or trace.answer.status not in WHOLE:
            return False, _NO_ANSWER
        judged = await self._judge.compare(request, trace.answer.text, meter)
        return judged.as_good, judged.by


def _models(trace: Trace | None) -> dict[str, int]:
    counts: dict[str, int] = {}
    for step in trace.steps if trace else ():
        if step.model is not None:
            counts[step.model] = counts.get(step.model, 0) + 1
    return counts


def judge_card(name: str | None, pool: Pool) -> Card | None:
    """Return the judge's card. Raises ConfigError for an unknown one, or one that cannot judge."""
    if name is None:
        return None
    card = pool.card(name)
    if card.prompt != "chat":
        raise ConfigError(f"{name} takes no chat messages, so it cannot judge; name another model")
    return card


def rows_of(
    requests: Sequence[Logged], samples: Samples, context: str
) -> list[tuple[Logged, SampleRow]]:
    """Return the sampled requests with their rows, in order."""
    return [
        (request, row)
        for request in requests
        if (row := samples.rows.get((context, request.id))) is not None
    ]
