"""A pool whose task is to shout, behind the fake provider.

"red and blue" is to become "RED BLUE". The planner cuts at "and"; `large` shouts one word, `middle`
a word of at most four letters, `small` says nothing at all; nobody manages a whole "and".
"""

from decimal import Decimal

from r2reasoner.benchmarks import Benchmark, Item
from r2reasoner.benchmarks.grading import sequence
from r2reasoner.mock import ChatCall
from r2reasoner.pool.cards import Card, Endpoint, Pool, Price

SHOUT = Benchmark(
    name="shout", query_field="query", gold_field="answer", grade=sequence, default_split="all"
)
WORDS = ("red", "blue", "green", "white", "black", "pink")


def items(count: int) -> tuple[Item, ...]:
    pairs = [(a, b) for a in WORDS for b in WORDS if a != b][:count]
    return SHOUT.items({"query": f"{a} and {b}", "answer": f"{a} {b}".upper()} for a, b in pairs)


def answer(call: ChatCall) -> str:
    text = call.last_user
    if call.model == "planner":
        parts = [part for part in text.split(" and ") if part]
        if len(parts) == 1:
            return "="
        references = " ".join(f"#{n}" for n in range(1, len(parts) + 1))
        return f"{' ; '.join(parts)} ; = {references}"
    if call.model == "small":
        return ""
    able = " " not in text and (call.model == "large" or len(text) <= 4)
    return text.upper() if able else "what"


def pool(base_url: str) -> Pool:
    endpoint = Endpoint(name="mock", kind="openai", base_url=base_url, concurrency=64)

    def card(name: str, dollars: str) -> Card:
        return Card(
            name=name,
            endpoint=endpoint,
            model=name,
            price=Price(Decimal(dollars), Decimal(dollars)),
            max_tokens=20,
            prompt="plain",
            plan_format="line" if name == "planner" else "json",
        )

    return Pool(
        name="toy",
        workers=(card("small", "1"), card("middle", "10"), card("large", "100")),
        policies={"planner": card("planner", "2")},
        decomposer="planner",
        allocator="ladder",
    )


def pool_file(base_url: str) -> str:
    text = '[pool]\nname = "toy"\ndecomposer = "planner"\nallocator = "ladder"\n'
    text += f'[endpoints.mock]\nbase_url = "{base_url}"\n'
    for kind, name, dollars in (
        ("workers", "small", 1),
        ("workers", "middle", 10),
        ("workers", "large", 100),
        ("policies", "planner", 2),
    ):
        text += f'[[{kind}]]\nname = "{name}"\nendpoint = "mock"\nmodel = "{name}"\n'
        text += f"input_price = {dollars}\noutput_price = {dollars}\nmax_tokens = 20\n"
        text += 'prompt = "plain"\n' + ('plan_format = "line"\n' if kind == "policies" else "")
    return text
