"""The task decomposer: query -> Plan (section "task decomposer" of the paper).

A decomposer is a model in the pool, called through the same client as every worker. A trained
policy writes the line format; any chat model is prompted for JSON, down a ladder of ways to ask.
What it writes is checked once; an invalid plan gets one repair, then the query is answered
directly and the Decomposition says so. The paper always decomposes; ours may answer directly.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol, TypeAlias

from r2reasoner import plan as plans
from r2reasoner import prompts, turns
from r2reasoner.budget import Meter
from r2reasoner.client.base import ChatRequest, Client, Completion
from r2reasoner.config import TRADE_OFF
from r2reasoner.errors import (
    BudgetExceeded,
    CallError,
    CallFault,
    PlanError,
    PlanFault,
    UnknownWords,
)
from r2reasoner.policy import asked
from r2reasoner.pool.cards import Card
from r2reasoner.types import Message, Plan, Query, Role, Subtask

LINE_MAX_TOKENS: Final = 72
JSON_MAX_TOKENS: Final = 1500
CONVERSATION_BYTES: Final = 32_768
TURN_CHARACTERS: Final = 4_000
"""What a planner is sent beside system turns: so much of the newest, of a long turn both ends."""
LONG_BYTES: Final = 2_048
"""From this size on a planner says which subtasks need the conversation: below, asking costs more
than it saves, and all are sent it."""
Rungs: TypeAlias = tuple[tuple[str, dict[str, Any] | None], ...]


def _rungs(schema: dict[str, Any]) -> Rungs:
    """Return the ways to ask for a plan, the strictest first."""
    named = {"name": "plan", "strict": True, "schema": schema}
    return (
        ("json_schema", {"type": "json_schema", "json_schema": named}),
        ("json_object", {"type": "json_object"}),
        ("text", None),
    )


RUNGS: Final = _rungs(plans.PLAN_SCHEMA)
CONVERSATION_RUNGS: Final = _rungs(plans.CONVERSATION_SCHEMA)


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

        Raises ConfigError, DeadlineExceeded and LedgerError; other failures end in a direct plan.
        """
        ...


def open_decomposer(
    card: Card,
    max_subtasks: int = plans.MAX_SUBTASKS,
    max_bytes: int = plans.MAX_BYTES,
    *,
    trade_off: float = TRADE_OFF,
) -> Decomposer:
    """Return the decomposer that a card describes; larger plans are invalid."""
    if card.plan_format == "line":
        return PolicyDecomposer(card, max_subtasks, max_bytes, trade_off=trade_off)
    return PromptedDecomposer(card, max_subtasks, max_bytes)


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


class _ByModel:
    """A decomposer that calls a model; plans over its limits are invalid."""

    def __init__(
        self,
        card: Card,
        max_subtasks: int = plans.MAX_SUBTASKS,
        max_bytes: int = plans.MAX_BYTES,
    ) -> None:
        self.card = card
        self.max_subtasks = max_subtasks
        self.max_bytes = max_bytes


class PolicyDecomposer(_ByModel):
    """A policy that writes the line format, in one go or step by step."""

    def __init__(
        self,
        card: Card,
        max_subtasks: int = plans.MAX_SUBTASKS,
        max_bytes: int = plans.MAX_BYTES,
        *,
        trade_off: float = TRADE_OFF,
    ) -> None:
        super().__init__(card, max_subtasks, max_bytes)
        self.trade_off = trade_off

    async def decompose(
        self, query: Query, client: Client, meter: Meter, deadline: float | None
    ) -> Decomposition:
        """Return the policy's plan; what is invalid is written again once, as the next beam."""
        notes: list[str] = []
        draft = _Draft((), plans.without_references(query.text))
        repair = False
        while True:
            try:
                written = await self._write(draft, repair, client, meter, deadline)
                taken = self._take(written, draft)
            except PlanError as error:
                if notes:
                    return _gave_up(query, notes, error)
                notes.append(f"repaired once: {error}")
                repair = True
            except (BudgetExceeded, CallError, UnknownWords) as error:
                return _gave_up(query, notes, error)
            else:
                if isinstance(taken, Plan):
                    return Decomposition(taken, tuple(notes))
                draft, repair = taken, False

    async def _write(
        self,
        draft: "_Draft",
        repair: bool,
        client: Client,
        meter: Meter,
        deadline: float | None,
    ) -> plans.Written:
        request = ChatRequest(
            messages=(Message("user", asked(self.card, self.trade_off, draft.rest)),),
            max_tokens=max(LINE_MAX_TOKENS, self.card.max_tokens),
            role=Role.DECOMPOSER,
            note=f"step {len(draft.steps) + 1}{' repair' if repair else ''}",
            rank=int(repair),
        )
        completion = await client.complete(self.card, request, meter, deadline)
        return plans.read_line(_whole_text(completion))

    def _take(self, written: plans.Written, draft: "_Draft") -> "Plan | _Draft":
        """Return the finished plan, or the draft with the steps that were written."""
        steps, rest = draft
        if written.more:
            for text in written.subtasks:
                rest = plans.take_step(rest, text, len(steps) + 1)
                steps = (*steps, Subtask(text))
                if len(steps) > self.max_subtasks:
                    raise PlanError(
                        PlanFault.TOO_MANY, f"at most {self.max_subtasks} subtasks are run"
                    )
            return _Draft(steps, rest)
        if not steps and not written.subtasks:
            return plans.direct(rest)
        if not steps:
            plan = plans.whole(written)
        elif written.subtasks:
            raise PlanError(PlanFault.UNREADABLE, "a whole plan in the middle of steps")
        elif Subtask(rest).is_join:
            plan = Plan(steps, rest)
        else:
            plan = Plan((*steps, Subtask(rest)), f"#{len(steps) + 1}")
        return plans.validate(plan, max_subtasks=self.max_subtasks, max_bytes=self.max_bytes)


class _Draft(NamedTuple):
    """A plan in the making: the steps so far, and the query with their references in it."""

    steps: tuple[Subtask, ...]
    rest: str


class PromptedDecomposer(_ByModel):
    """Any chat model, asked for JSON: by schema, as an object, as text; then one repair turn."""

    async def decompose(
        self, query: Query, client: Client, meter: Meter, deadline: float | None
    ) -> Decomposition:
        """Return the model's plan; each rung of the ladder is in the notes and the ledger."""
        notes: list[str] = []
        messages = self._messages(query)
        rungs = CONVERSATION_RUNGS if _is_long(query.earlier) else RUNGS
        rung = 0
        repaired = False
        while True:
            name, response_format = rungs[rung]
            request = ChatRequest(
                messages=tuple(messages),
                max_tokens=min(JSON_MAX_TOKENS, self.card.max_tokens),
                role=Role.DECOMPOSER,
                note=f"{name}{' repair' if repaired else ''}",
                response_format=response_format,
                cache_key=query.conversation,
            )
            try:
                completion = await client.complete(self.card, request, meter, deadline)
                plan = self._read(_whole_text(completion))
            except PlanError as error:
                if repaired:
                    return _gave_up(query, notes, error)
                notes.append(f"{name}: repaired once: {error}")
                messages += self._repair(completion.text, error)
                repaired = True
            except CallError as error:
                if error.fault is not CallFault.BAD_REQUEST or rung == len(rungs) - 1:
                    return _gave_up(query, notes, error)
                notes.append(f"{name}: not taken by the endpoint")
                rung += 1
            except (BudgetExceeded, UnknownWords) as error:
                return _gave_up(query, notes, error)
            else:
                notes.append(name)
                return Decomposition(plan, tuple(notes))

    def _messages(self, query: Query) -> list[Message]:
        text = f"Plan this query:\n{prompts.as_data(plans.without_references(query.text))}"
        if _is_long(query.earlier):
            text += f"\n{prompts.read('decompose_conversation')}"
        asked = Message("user", text)
        rest = turns.size(*prompts.opening("decompose", ()), asked)
        room = turns.room(self.card.context, min(JSON_MAX_TOKENS, self.card.max_tokens), rest)
        earlier = [
            turn if turn.role == "system" else turns.shortened(turn, TURN_CHARACTERS)
            for turn in query.earlier
        ]
        most = CONVERSATION_BYTES + turns.size(*(t for t in earlier if t.role == "system"))
        kept = turns.newest(earlier, min(room, most))
        return [*prompts.opening("decompose", kept), asked]

    def _read(self, text: str) -> Plan:
        read: Callable[[str], Plan] = plans.read_json if "{" in text else plans.read_prose
        return plans.validate(read(text), max_subtasks=self.max_subtasks, max_bytes=self.max_bytes)

    @staticmethod
    def _repair(written: str, error: PlanError) -> list[Message]:
        return [
            Message("assistant", written[:4000]),
            Message("user", f"That is no valid plan: {error}. Write the whole plan again as JSON."),
        ]


def _is_long(earlier: tuple[Message, ...]) -> bool:
    return turns.size(*earlier) >= LONG_BYTES


def _whole_text(completion: Completion) -> str:
    """Return what was written. Raises PlanError where it was cut: the rest of a plan is missing."""
    if completion.finish_reason == "length":
        raise PlanError(
            PlanFault.UNREADABLE, f"cut at {completion.usage.output_tokens} tokens, so not whole"
        )
    return completion.text
