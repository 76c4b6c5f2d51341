"""Pools, plans and providers as the engine's tests need them: real sockets, real models."""

import json
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any, Literal

from r2reasoner.client.openai import OpenAIClient
from r2reasoner.config import settings
from r2reasoner.ledger import Ledger
from r2reasoner.mock import ChatCall, MockProvider, in_thread
from r2reasoner.pool.cards import Card, Endpoint, Pool, Price
from r2reasoner.router import Router
from r2reasoner.types import Allocation, Choice, Plan, Subtask

DOLLARS = {"planner": "2", "small": "1", "medium": "10", "large": "100"}


class NoJitter(Random):
    """Draws every back-off as 0, so that retries come at once."""

    def uniform(self, a: float, b: float) -> float:
        return a


def price(name: str) -> Price:
    dollars = Decimal(DOLLARS.get(name, "5"))
    return Price(dollars, dollars)


def endpoint_at(base_url: str, **more: Any) -> Endpoint:
    return Endpoint(name="mock", kind="openai", base_url=base_url, **more)


def card_at(base_url: str, name: str, *, max_tokens: int = 50, **more: Any) -> Card:
    more.setdefault("endpoint", endpoint_at(base_url))
    more.setdefault("price", price(name))
    return Card(name=name, model=name, max_tokens=max_tokens, **more)


def pool_at(
    base_url: str,
    *,
    workers: Sequence[str] = ("small", "medium", "large"),
    plan_format: Literal["json", "line"] = "json",
    allocator: str = "ladder",
    outcomes: Path | None = None,
    **worker: Any,
) -> Pool:
    """Return a pool of a planner and workers, all at one address, from weakest to strongest."""
    prompt = "plain" if plan_format == "line" else "chat"
    planner = card_at(base_url, "planner", max_tokens=400, plan_format=plan_format, prompt=prompt)
    return Pool(
        name="mock",
        workers=tuple(card_at(base_url, name, **worker) for name in workers),
        policies={"planner": planner},
        decomposer="planner",
        allocator=allocator,
        outcomes=outcomes,
    )


def plan_of(*texts: str, answer: str | None = None) -> Plan:
    return Plan(tuple(Subtask(text) for text in texts), answer or f"#{len(texts)}")


def plan_json(*subtasks: str | tuple[str, list[int]], answer: str | None = None) -> str:
    """Return a plan as prompted models write it."""
    listed = [(s, []) if isinstance(s, str) else s for s in subtasks]
    return json.dumps(
        {
            "subtasks": [{"text": text, "needs": needs} for text, needs in listed],
            "answer": answer or f"#{len(listed)}",
        }
    )


def given(plan: Plan, *models: str) -> Allocation:
    """Return an allocation; one model is for all subtasks."""
    names = models * len(plan.subtasks) if len(models) == 1 else models
    return Allocation(
        tuple(
            None if subtask.is_join else Choice(name, "given")
            for subtask, name in zip(plan.subtasks, names, strict=True)
        ),
        "given",
        calibrated=False,
    )


def step_of(call: ChatCall) -> str:
    """Return the subtask that a chat worker is asked, or the whole prompt of a direct call."""
    return call.last_user.rpartition("Your step: ")[2]


def answers(
    planner: str | Sequence[str] | Callable[[ChatCall], str] = "",
    worker: Callable[[ChatCall], str] = lambda call: f"<{step_of(call)}>",
    allocator: str | Callable[[ChatCall], str] = "",
) -> Callable[[ChatCall], str]:
    """Answer by what a call is for; a list of plans is used up one by one, its last again."""
    plans = [planner] if isinstance(planner, str) else planner
    asked = 0

    def answer(call: ChatCall) -> str:
        nonlocal asked
        if call.role == "decomposer":
            if callable(plans):
                return plans(call)
            asked += 1
            return plans[min(asked, len(plans)) - 1]
        if call.role == "allocator":
            return allocator(call) if callable(allocator) else allocator
        return worker(call)

    return answer


@asynccontextmanager
async def routing(
    provider: MockProvider, ledger: Ledger, *, flags: dict[str, Any] | None = None, **pool: Any
) -> AsyncIterator[Router]:
    """Start a provider, and yield a router over a pool at it whose retries come at once."""
    async with provider:
        router = Router.open(
            pool_at(provider.base_url, **pool),
            settings(**(flags or {})),
            ledger,
            client=OpenAIClient(NoJitter()),
        )
        async with router:
            yield router


@contextmanager
def serving(provider: MockProvider) -> Iterator[str]:
    """Serve from a thread, for commands and doors that have an event loop of their own."""
    with in_thread(provider):
        yield provider.base_url


def pool_file(folder: Path, base_url: str, **pool: Any) -> Path:
    """Write the file of `pool_at`'s pool, with these further keys of `[pool]` or an endpoint."""
    lines = ["[pool]", 'name = "mock"', 'decomposer = "planner"', 'allocator = "ladder"']
    lines += ["[endpoints.mock]", f'base_url = "{base_url}"']
    lines += [f'{key} = "{value}"' for key, value in pool.items()]
    for kind, names in (("workers", ("small", "medium", "large")), ("policies", ("planner",))):
        for name in names:
            rate = DOLLARS[name]
            lines += [f"[[{kind}]]", f'name = "{name}"', f'model = "{name}"', 'endpoint = "mock"']
            lines += [f"input_price = {rate}", f"output_price = {rate}", "max_tokens = 50"]
    file = folder / "pool.toml"
    file.write_text("\n".join(lines) + "\n")
    return file
