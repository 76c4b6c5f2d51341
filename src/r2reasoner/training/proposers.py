"""Proposers: candidate decompositions of a query, of which the run decides which is right.

`ByRule` cuts texts by rules (the nano tasks' `nano.propose`), `Prompted` asks a chat model several
times at a temperature above 0. The direct plan is always among the candidates.
"""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, Protocol

from r2reasoner import prompts
from r2reasoner.budget import Meter
from r2reasoner.client.base import ChatRequest, Client
from r2reasoner.errors import CallError, ConfigError, PlanError, PlanFault
from r2reasoner.plan import direct, read_json, read_prose, without_references
from r2reasoner.pool.cards import Card
from r2reasoner.training.rows import plan_text
from r2reasoner.training.trials import check_reached
from r2reasoner.types import Message, Plan, Role

PLAN_MAX_TOKENS: Final = 1500


class Candidate(Protocol):
    """A plan that may be right, and the (asked, written) lines that write it."""

    @property
    def plan(self) -> Plan:
        """The plan."""
        ...

    @property
    def lines(self) -> tuple[tuple[str, str], ...]:
        """What a policy is asked, and what it writes, call by call."""
        ...


class Proposed(NamedTuple):
    """Candidates for a query, and why other proposals are none."""

    candidates: Sequence[Candidate]
    unreadable: tuple[str, ...] = ()


class Proposer(Protocol):
    """Anything that proposes plans for a query."""

    @property
    def name(self) -> str:
        """What stands in the data as where the plans come from."""
        ...

    async def propose(self, query: str, meter: Meter) -> Proposed:
        """Return candidates, each plan once, the direct one among them. They may be invalid.

        Calls to models go through the meter. Raises BudgetExceeded, LedgerError.
        """
        ...


class ByRule:
    """Candidates of a function of the text, which must give the direct plan too."""

    name = "by rule"

    def __init__(self, rule: Callable[[str], Sequence[Candidate]]) -> None:
        self._rule = rule

    async def propose(self, query: str, meter: Meter) -> Proposed:
        """Return the function's candidates; no model is called."""
        return Proposed(self._rule(query))


class Drafted(NamedTuple):
    """A candidate that is written in one go."""

    plan: Plan
    lines: tuple[tuple[str, str], ...]


class Prompted:
    """Candidates that a chat model writes, `count` times, as JSON or as a numbered list.

    Raises ConfigError for a model that does not take chat messages, or a temperature of 0, at
    which it would write the same each time.
    """

    def __init__(
        self, card: Card, client: Client, *, count: int = 8, temperature: float = 1.0
    ) -> None:
        if card.prompt != "chat":
            raise ConfigError(f"{card.name} takes plain prompts; a proposer must be a chat model")
        if temperature <= 0 or count < 1:
            raise ConfigError(
                f"a proposer writes at least one plan at a temperature above 0, not {count} at"
                f" {temperature:g}"
            )
        self.name = card.name
        self._card = card
        self._client = client
        self._count = count
        self._temperature = temperature

    async def propose(self, query: str, meter: Meter) -> Proposed:
        """Return the direct plan and what the model wrote; a call that fails is a proposal less.

        Raises Unreachable (see `check_reached`).
        """
        plans = [direct(query)]
        failures: list[CallError] = []
        unreadable: list[str] = []
        for number in range(1, self._count + 1):
            try:
                plan = await self._write(query, number, meter)
            except CallError as error:
                failures.append(error)
            except PlanError as error:
                unreadable.append(str(error))
            else:
                plans += [] if plan.is_direct or plan in plans else [plan]
        check_reached(meter, failures)
        unreadable += map(str, failures)
        drafts = [Drafted(plan, ((query, plan_text(plan, query)),)) for plan in plans]
        return Proposed(drafts, tuple(unreadable))

    async def _write(self, query: str, number: int, meter: Meter) -> Plan:
        asked = f"Plan this query:\n{prompts.as_data(without_references(query))}"
        request = ChatRequest(
            messages=(Message("system", prompts.read("decompose")), Message("user", asked)),
            max_tokens=min(PLAN_MAX_TOKENS, self._card.max_tokens),
            role=Role.DECOMPOSER,
            note=f"candidate {number}",
            temperature=self._temperature,
        )
        written = await self._client.complete(self._card, request, meter)
        if written.finish_reason == "length":
            tokens = written.usage.output_tokens
            raise PlanError(PlanFault.UNREADABLE, f"cut at {tokens} tokens, so not whole")
        return read_json(written.text) if "{" in written.text else read_prose(written.text)
