"""Public price lists: what a hosted model costs when the pool file does not say.

Rates come from the data that ships inside the `genai-prices` package; nothing is fetched. The host
of the endpoint decides whose list counts, so a server that is on no list has an unknown price
(None), never 0. Where the rate depends on the hour, the dearest hour of the day counts, so that a
bound is never too low; the ledger may then read more than the bill.
Left out: fees by request (such models count as unpriced), cache writes and batch discounts.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from r2reasoner.pool.cards import Price, Tier

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice

_MIDNIGHTS_APART = timedelta(days=1)
_STEP = timedelta(minutes=15)


def public_price(model: str, base_url: str, at: datetime | None = None) -> Price | None:
    """Return the list price of a model at a provider's host on a day (today, if None).

    None where the host or the model is on no list, or where its fees are not by token alone.
    """
    from genai_prices import __version__
    from genai_prices.data_snapshot import get_snapshot

    day = (at or datetime.now(UTC)).astimezone(UTC).date()
    try:
        provider, info = get_snapshot().find_provider_model(model, None, None, base_url)
    except LookupError:
        return None
    by_hour = list(_through_the_day(info, datetime.combine(day, time(), UTC)))
    if any(not _by_token_alone(rates) for rates in by_hour):
        return None
    rates = max(by_hour, key=lambda r: (_base(r.output_mtok), _base(r.input_mtok)))
    changing = any(other != rates for other in by_hour)
    source = f"genai-prices {__version__}, {provider.name}, {day}"
    return _price(rates, source + (", dearest hour of the day" if changing else ""))


def _through_the_day(info: "ModelInfo", midnight: datetime) -> "Iterator[ModelPrice]":
    moment = midnight
    while moment < midnight + _MIDNIGHTS_APART:
        yield info.get_prices(moment)
        moment += _STEP


def _by_token_alone(rates: "ModelPrice") -> bool:
    return (
        rates.input_mtok is not None
        and rates.output_mtok is not None
        and rates.requests_kcount is None
    )


def _price(rates: "ModelPrice", source: str) -> Price:
    read, write, cached = rates.input_mtok, rates.output_mtok, rates.cache_read_mtok
    starts = sorted({tier.start for rate in (read, write, cached) for tier in _tiers(rate)})
    return Price(
        input=_base(read),
        output=_base(write),
        cached=None if cached is None else _base(cached),
        source=source,
        tiers=tuple(
            Tier(
                above=start,
                input=_above(read, start),
                output=_above(write, start),
                cached=None if cached is None else _above(cached, start),
            )
            for start in starts
        ),
    )


def _base(rate: Any) -> Decimal:
    base: Decimal = getattr(rate, "base", rate)
    return base


def _tiers(rate: Any) -> list[Any]:
    return list(getattr(rate, "tiers", ()))


def _above(rate: Any, start: int) -> Decimal:
    """Return the rate of the highest tier that a call beyond `start` input tokens has reached."""
    reached: list[Decimal] = [tier.price for tier in _tiers(rate) if tier.start <= start]
    return reached[-1] if reached else _base(rate)
