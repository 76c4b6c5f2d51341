from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r2reasoner.errors import ConfigError
from r2reasoner.pool.cards import Card, Endpoint, Pool, Price, Tier
from r2reasoner.types import Usage

RATES = st.decimals(min_value=0, max_value=1000, places=6)
TOKENS = st.integers(min_value=0, max_value=10**7)
ENDPOINT = Endpoint(name="here", kind="openai", base_url="http://localhost:1/v1")


def card(name: str, price: Price | None) -> Card:
    return Card(name=name, endpoint=ENDPOINT, model=name, price=price)


def price(input_rate: str, output_rate: str) -> Price:
    return Price(Decimal(input_rate), Decimal(output_rate))


POOL = Pool(
    name="three",
    workers=(
        card("small", price("0.1", "0.2")),
        card("unpriced", None),
        card("large", price("0.05", "0.1")),
    ),
    policies={"planner": card("planner", price("1", "1"))},
    decomposer="planner",
    allocator="ladder",
)


def test_cost_is_in_pico_dollars_with_cached_tokens_at_their_rate() -> None:
    rates = Price(Decimal("2.5"), Decimal("10"), Decimal("1.25"))
    usage = Usage(input_tokens=1000, output_tokens=10, cached_tokens=400)
    assert rates.cost(usage) == 600 * 2_500_000 + 400 * 1_250_000 + 10 * 10_000_000


def test_fractions_of_a_pico_dollar_are_rounded_up() -> None:
    assert price("0.0000001", "0").cost(Usage(input_tokens=1)) == 1
    assert price("0.0000001", "0").cost(Usage()) == 0


@given(RATES, RATES, TOKENS, TOKENS, TOKENS, TOKENS)
def test_the_cost_of_a_sum_is_within_one_pico_of_the_sum_of_costs(
    rate_in: Decimal, rate_out: Decimal, a: int, b: int, c: int, d: int
) -> None:
    rates = Price(rate_in, rate_out)
    one, two = Usage(a, b), Usage(c, d)
    assert 0 <= rates.cost(one) + rates.cost(two) - rates.cost(one + two) <= 1


@given(RATES, RATES, TOKENS, TOKENS)
def test_cost_is_never_below_the_exact_amount(
    rate_in: Decimal, rate_out: Decimal, tokens_in: int, tokens_out: int
) -> None:
    exact = (Fraction(rate_in) * tokens_in + Fraction(rate_out) * tokens_out) * 10**6
    assert exact <= Price(rate_in, rate_out).cost(Usage(tokens_in, tokens_out)) < exact + 1


def test_beyond_a_tier_all_tokens_pay_its_rates() -> None:
    tiers = (
        Tier(100, Decimal(2), Decimal(3), Decimal(1)),
        Tier(200, Decimal(4), Decimal(5)),
    )
    rates = Price(Decimal(1), Decimal(1), tiers=tiers)
    assert rates.cost(Usage(100, 1)) == 101 * 10**6
    assert rates.cost(Usage(101, 1, cached_tokens=1)) == (100 * 2 + 1 * 1 + 3) * 10**6
    assert rates.cost(Usage(201, 1, cached_tokens=1)) == (201 * 4 + 5) * 10**6


def test_the_order_of_the_file_is_the_order_of_strength() -> None:
    assert POOL.strongest.name == "large"
    assert [c.name for c in POOL.stronger("small")] == ["unpriced", "large"]
    assert POOL.stronger("large") == ()


def test_unknown_prices_are_never_the_cheapest() -> None:
    assert [c.name for c in POOL.by_price] == ["large", "small", "unpriced"]
    assert POOL.cheapest.name == "large"


def test_workers_and_policies_are_found_by_name() -> None:
    assert POOL.card("planner").name == "planner"
    with pytest.raises(ConfigError, match="no model 'tiny' in pool 'three'; it has: small, "):
        POOL.card("tiny")
