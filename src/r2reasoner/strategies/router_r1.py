"""`router-r1`: one model thinks and asks others in turns, up to four, before it answers.

Published (Router-R1, arXiv 2506.09033): a 3B policy, trained by PPO on the final answer's
correctness, its format and the price of the calls, writes in each turn a thought and then either
the name of a model with a sub-question, whose reply is put before it, or the answer. After four
turns it is asked once more without being allowed to ask others.

Ours has the turns and not the training: the policy is the pool's decomposer, a chat model that is
told the rules and the pool's cards in words, so it shows what the format does and not what PPO
taught. A turn with neither a question nor an answer is pointed out and counts as a turn; in the
last one whatever was written is the answer. Its own turns are in the net cost only, as in the
published accounts. A policy with a plain prompt cannot be told any of this: there is no fall-back,
since such a pool's decomposer and allocator already are what is trained here, and `r2` shows them.
"""

import re
from dataclasses import replace
from typing import Final, NamedTuple

from r2reasoner import prompts
from r2reasoner.allocator import card_line
from r2reasoner.budget import Meter
from r2reasoner.client.base import ChatRequest, Client, Completion
from r2reasoner.decomposer import Direct
from r2reasoner.errors import BudgetExceeded, CallError, ConfigError, UnknownWords
from r2reasoner.pool.cards import Card, Pool
from r2reasoner.router import Router
from r2reasoner.strategies.answering import Answering
from r2reasoner.strategies.base import StrategyContext, always
from r2reasoner.types import Message, Role

TURNS: Final = 4
TURN_TOKENS: Final = 1024

_THOUGHT: Final = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)
_ROUTE: Final = re.compile(r"<route>(.*?)(?:</route>|\Z)", re.DOTALL)
_ANSWER: Final = re.compile(r"<answer>(.*?)(?:</answer>|\Z)", re.DOTALL)
_STOPS: Final = ("</route>", "</answer>")


class Turn(NamedTuple):
    """What a policy wrote in a turn: an answer, or a model and a question to it, or neither."""

    answer: str | None = None
    route: str | None = None


class Turns(Answering):
    """Answers a query by a policy's turns of thinking and asking the pool's workers."""

    def __init__(self, inner: Client, pool: Pool, policy: Card) -> None:
        super().__init__(inner)
        self._pool = pool
        self._policy = policy
        self._rules = prompts.read("route_turns").format(
            turns=TURNS, cards="\n".join(card_line(card) for card in pool.workers)
        )
        self.cards = tuple(dict.fromkeys((policy, *pool.workers)))
        self.most = 2 * TURNS + 1
        longest = TURN_TOKENS + max(card.max_tokens for card in pool.workers)
        self.more_input = len(self._rules.encode()) + TURNS * longest

    async def answer(
        self, card: Card, request: ChatRequest, meter: Meter, deadline: float | None
    ) -> Completion:
        """Return what the policy answers in the end. Raises where it cannot be asked."""
        said = [Message("system", self._rules), *request.messages]
        for number in range(1, TURNS + 1):
            completion = await self._turn(said, request, number, meter, deadline)
            turn = read_turn(completion.text)
            if turn.answer is not None:
                return replace(completion, text=turn.answer)
            reply = await self._reply(turn, request, number, meter, deadline)
            said += [Message("assistant", completion.text), Message("user", reply)]
        said[-1] = Message("user", f"{said[-1].content}\n\n{_LAST}")
        completion = await self._turn(said, request, TURNS + 1, meter, deadline)
        return replace(completion, text=last_word(completion.text))

    async def _turn(
        self,
        said: list[Message],
        request: ChatRequest,
        number: int,
        meter: Meter,
        deadline: float | None,
    ) -> Completion:
        asked = replace(
            request,
            messages=tuple(said),
            max_tokens=min(TURN_TOKENS, self._policy.max_tokens),
            role=Role.CHECK,
            note=f"turn {number}",
            stop=_STOPS,
        )
        return await self.inner.complete(self._policy, asked, meter, deadline)

    async def _reply(
        self,
        turn: Turn,
        request: ChatRequest,
        number: int,
        meter: Meter,
        deadline: float | None,
    ) -> str:
        """Return what the policy is told after a turn: a worker's answer, or what was wrong."""
        if turn.route is None:
            return "Write <route>NAME: a question</route> or <answer>...</answer>."
        card, question = read_route(turn.route, self._pool)
        if card is None:
            names = ", ".join(worker.name for worker in self._pool.workers)
            return f"Write the name of a model, a colon and a question; there are: {names}."
        asked = replace(
            request,
            messages=(Message("user", question),),
            max_tokens=card.max_tokens,
            note=f"asked in turn {number}",
        )
        try:
            return prompts.as_data((await self.inner.complete(card, asked, meter, deadline)).text)
        except (BudgetExceeded, CallError, UnknownWords):
            return f"{card.name} could not be asked. Do without it."


_LAST: Final = "No more models can be asked. Give the final answer now: <answer>...</answer>"


def read_turn(text: str) -> Turn:
    """Return the answer in a turn, or else its route; what is inside a thought is neither."""
    spoken = _THOUGHT.sub("", text)
    answer = _ANSWER.search(spoken)
    if answer and answer.group(1).strip():
        return Turn(answer=answer.group(1).strip())
    route = _ROUTE.search(spoken)
    return Turn(route=route.group(1).strip()) if route else Turn()


def read_route(text: str, pool: Pool) -> tuple[Card | None, str]:
    """Return the worker that is asked, and what; None where none is named or nothing is asked.

    Names may have colons in them.
    """
    for card in sorted(pool.workers, key=lambda card: -len(card.name)):
        name, colon, question = text.partition(f"{card.name}:")
        if colon and not name.strip() and question.strip():
            return card, question.strip()
    return None, ""


def last_word(text: str) -> str:
    """Return the answer in a last turn: what is marked so, else what is no thought, else all."""
    return read_turn(text).answer or _THOUGHT.sub("", text).strip() or text


def router_r1(context: StrategyContext) -> Router:
    """Return the router. Raises ConfigError where the pool has no chat model to play the policy."""
    policy = context.pool.card(context.pool.decomposer)
    if policy.prompt == "plain":
        raise ConfigError(
            f"router-r1 needs a chat model that can be told in words to think and to ask others,"
            f" but the pool's decomposer {policy.name} takes a plain prompt; name a chat model as"
            " decomposer in the pool file"
        )
    return Router.open(
        replace(context.pool, workers=(policy,)),
        context.settings,
        context.ledger,
        client=Turns(context.client, context.pool, policy),
        decomposer=Direct(),
        allocator=always(policy, "router-r1"),
    )
