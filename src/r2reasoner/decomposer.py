"""The task decomposer: query -> Plan (section "task decomposer" of the paper).

A decomposer is a model in the pool, called through the same client as every worker. A trained
policy writes the line format; any chat model is prompted for JSON, down a ladder of ways to ask.
What it writes is checked once; an invalid plan gets one repair, then the query is answered
directly and the Decomposition says so. The paper always decomposes; ours may answer directly.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from r2reasoner import plan as plans
from r2reasoner import prompts
from r2reasoner.budget import Meter
from r2reasoner.client.base import ChatRequest, Client
from r2reasoner.errors import BudgetExceeded, CallError, CallFault, PlanError, PlanFault
from r2reasoner.pool.cards import Card
from r2reasoner.types import Message, Plan, Query, Role, Subtask

LINE_MAX_TOKENS: Final = 72
JSON_MAX_TOKENS: Final = 1500
RUNGS: Final[tuple[tuple[str, dict[str, Any] | None], ...]] = (
    (
        "json_schema",
        {
            "type": "json_schema",
            "json_schema": {"name": "plan", "strict": True, "schema": plans.PLAN_SCHEMA},
        },
    ),
    ("json_object", {"type": "json_object"}),
    ("text", None),
)


@dataclass(frozen=True, slots=True)
class Decomposition:
    """A valid plan and how it came about. `failed`: no valid plan was written, hence direct."""

    plan: Plan
    notes: tuple[str, ...] = ()
    failed: bool = False


class Decomposer(Protocol):
    """Anything that plans a query."""

    async def decompose(
        self, query: Query, client: Client, meter: Meter, deadline: float | None
    ) -> Decomposition:
        """Return a valid plan, or a visibly failed one that answers directly.

        Raises UnknownWords, DeadlineExceeded and LedgerError; other failures end in a direct plan.
        """
        ...


def open_decomposer(card: Card, max_subtasks: int = plans.MAX_SUBTASKS) -> Decomposer:
    """Return the decomposer that a card describes."""
    if card.plan_format == "line":
        return PolicyDecomposer(card, max_subtasks)
    return PromptedDecomposer(card, max_subtasks)


class Direct:
    """Never decomposes and costs nothing (`--direct`)."""

    async def decompose(
        self, query: Query, client: Client, meter: Meter, deadline: float | None
    ) -> Decomposition:
        """Return the plan of one call."""
        return Decomposition(plans.direct(query.text), ("direct by request",))


def _gave_up(query: Query, notes: list[str], error: Exception) -> Decomposition:
    notes.append(f"answered directly: {error}")
    return Decomposition(plans.direct(query.text), tuple(notes), failed=True)


class PolicyDecomposer:
    """A policy that writes the line format, in one go or step by step."""

    def __init__(self, card: Card, max_subtasks: int = plans.MAX_SUBTASKS) -> None:
        self.card = card
        self.max_subtasks = max_subtasks

    async def decompose(
        self, query: Query, client: Client, meter: Meter, deadline: float | None
    ) -> Decomposition:
        """Return the policy's plan; an invalid one is repaired once, by the next beam."""
        notes: list[str] = []
        steps: list[Subtask] = []
        rest = query.text
        repaired = False
        while True:
            try:
                written = await self._write(rest, len(steps), repaired, client, meter, deadline)
                done, rest = self._take(written, rest, steps)
            except PlanError as error:
                if repaired:
                    return _gave_up(query, notes, error)
                notes.append(f"repaired once: {error}")
                repaired, steps, rest = True, [], query.text
            except (BudgetExceeded, CallError) as error:
                return _gave_up(query, notes, error)
            else:
                if done is not None:
                    return Decomposition(done, tuple(notes))

    async def _write(
        self,
        rest: str,
        step: int,
        repaired: bool,
        client: Client,
        meter: Meter,
        deadline: float | None,
    ) -> plans.Written:
        request = ChatRequest(
            messages=(Message("user", rest),),
            max_tokens=LINE_MAX_TOKENS,
            role=Role.DECOMPOSER,
            note="repair" if repaired else f"step {step + 1}",
            rank=int(repaired and step == 0),
        )
        completion = await client.complete(self.card, request, meter, deadline)
        return plans.read_line(completion.text)

    def _take(
        self, written: plans.Written, rest: str, steps: list[Subtask]
    ) -> tuple[Plan | None, str]:
        """Take in what was written: the finished plan, or None and the query that is left."""
        if written.more:
            for text in written.subtasks:
                rest = plans.take_step(rest, text, len(steps) + 1)
                steps.append(Subtask(text))
            if len(steps) >= self.max_subtasks:
                raise PlanError(PlanFault.TOO_MANY, f"at most {self.max_subtasks} subtasks are run")
            return None, rest
        if not steps:
            plan = plans.whole(written) if written.subtasks else plans.direct(rest)
        elif written.subtasks:
            raise PlanError(PlanFault.UNREADABLE, "a whole plan in the middle of steps")
        elif Subtask(rest).is_join:
            plan = Plan(tuple(steps), rest)
        else:
            plan = Plan((*steps, Subtask(rest)), f"#{len(steps) + 1}")
        return plans.validate(plan, max_subtasks=self.max_subtasks), rest


class PromptedDecomposer:
    """Any chat model, asked for JSON: by schema, as an object, as text; then one repair turn."""

    def __init__(self, card: Card, max_subtasks: int = plans.MAX_SUBTASKS) -> None:
        self.card = card
        self.max_subtasks = max_subtasks

    async def decompose(
        self, query: Query, client: Client, meter: Meter, deadline: float | None
    ) -> Decomposition:
        """Return the model's plan; each rung of the ladder is in the notes and the ledger."""
        notes: list[str] = []
        messages = self._messages(query)
        rung = 0
        repaired = False
        while True:
            name, response_format = RUNGS[rung]
            request = ChatRequest(
                messages=tuple(messages),
                max_tokens=min(JSON_MAX_TOKENS, self.card.max_tokens),
                role=Role.DECOMPOSER,
                note=f"{name}{' repair' if repaired else ''}",
                response_format=response_format,
            )
            try:
                completion = await client.complete(self.card, request, meter, deadline)
                plan = self._read(completion.text)
            except PlanError as error:
                if repaired:
                    return _gave_up(query, notes, error)
                notes.append(f"{name}: repaired once: {error}")
                messages += self._repair(completion.text, error)
                repaired = True
            except CallError as error:
                if error.fault is not CallFault.BAD_REQUEST or rung == len(RUNGS) - 1:
                    return _gave_up(query, notes, error)
                notes.append(f"{name}: not taken by the endpoint")
                rung += 1
            except BudgetExceeded as error:
                return _gave_up(query, notes, error)
            else:
                notes.append(name)
                return Decomposition(plan, tuple(notes))

    def _messages(self, query: Query) -> list[Message]:
        return [
            Message("system", prompts.read("decompose")),
            *query.earlier,
            Message("user", f"Plan this query:\n<data>\n{query.text}\n</data>"),
        ]

    def _read(self, text: str) -> Plan:
        read: Callable[[str], Plan] = plans.read_json if "{" in text else plans.read_prose
        return plans.validate(read(text), max_subtasks=self.max_subtasks)

    @staticmethod
    def _repair(written: str, error: PlanError) -> list[Message]:
        return [
            Message("assistant", written[:4000]),
            Message("user", f"That is no valid plan: {error}. Write the whole plan again as JSON."),
        ]


def expired(deadline: float | None) -> bool:
    """Tell whether a deadline (a `time.monotonic()` moment) is over."""
    return deadline is not None and time.monotonic() >= deadline
