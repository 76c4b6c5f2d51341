from datetime import UTC, datetime
from decimal import Decimal

import genai_prices
import pytest
from genai_prices.types import Usage as ListUsage
from hypothesis import given
from hypothesis import strategies as st

from r2reasoner.pool.prices import public_price
from r2reasoner.types import Usage

OPENAI = "https://api.openai.com/v1"
DEEPSEEK = "https://api.deepseek.com/v1"
OPENROUTER = "https://openrouter.ai/api/v1"
DAY = datetime(2026, 11, 24, 18, tzinfo=UTC)


def test_a_hosted_model_takes_its_list_price_with_source_and_day() -> None:
    price = public_price("gpt-4o", OPENAI, DAY)
    assert price is not None
    assert (price.input, price.output, price.cached) == (
        Decimal("2.5"),
        Decimal("10"),
        Decimal("1.25"),
    )
    assert price.source == f"genai-prices {genai_prices.__version__}, OpenAI, 2026-11-24"


@pytest.mark.parametrize(
    ("model", "url"),
    [
        ("gpt-4o", "http://localhost:8000/v1"),
        ("gpt-4o", "https://llm.example.com/v1"),
        ("no-such-model", OPENAI),
        ("qwen/qwen-2.5-7b-instruct:free", OPENROUTER),
        ("text-embedding-3-small", OPENAI),
    ],
)
def test_what_is_on_no_list_is_unknown_and_not_free(model: str, url: str) -> None:
    assert public_price(model, url, DAY) is None


def test_a_fee_by_request_makes_the_price_unknown() -> None:
    assert public_price("sonar", "https://api.perplexity.ai", DAY) is None


def test_the_dearest_hour_of_the_day_counts_at_every_hour() -> None:
    prices = [public_price("deepseek-flash", DEEPSEEK, DAY.replace(hour=h)) for h in range(24)]
    assert len(set(prices)) == 1
    price = prices[0]
    assert price is not None
    assert price.source.endswith("dearest hour of the day")
    for hour in range(24):
        listed = genai_prices.calc_price(
            ListUsage(input_tokens=1000, output_tokens=1000),
            "deepseek-flash",
            provider_api_url=DEEPSEEK,
            genai_request_timestamp=DAY.replace(hour=hour),
        )
        assert price.cost(Usage(1000, 1000)) >= listed.total_price * 10**12


def test_a_rate_that_starts_on_a_day_holds_from_that_day() -> None:
    model = "qwen/qwen-2.5-7b-instruct"
    before = public_price(model, OPENROUTER, datetime(2026, 10, 18, 23, 59, tzinfo=UTC))
    after = public_price(model, OPENROUTER, datetime(2026, 10, 19, tzinfo=UTC))
    assert before is not None
    assert after is not None
    assert (before.input, after.input) == (Decimal("0.04"), Decimal("0.1"))


@given(
    st.sampled_from(["gpt-4o", "gpt-6-luna", "gpt-5.5"]),
    st.integers(min_value=0, max_value=900_000),
    st.integers(min_value=0, max_value=50_000),
    st.floats(min_value=0, max_value=1),
)
def test_cost_is_that_of_the_list_in_every_tier(
    model: str, tokens_in: int, tokens_out: int, share: float
) -> None:
    price = public_price(model, OPENAI, DAY)
    assert price is not None
    cached = int(tokens_in * share)
    listed = genai_prices.calc_price(
        ListUsage(input_tokens=tokens_in, output_tokens=tokens_out, cache_read_tokens=cached),
        model,
        provider_api_url=OPENAI,
        genai_request_timestamp=DAY,
    )
    exact = listed.total_price * 10**12
    assert 0 <= price.cost(Usage(tokens_in, tokens_out, cached)) - exact < 1
