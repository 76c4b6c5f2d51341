"""The shape of a pool file: its tables, their keys, and what is right within one table.

What must agree between tables (names, endpoints) is checked by `load`. The texts of the errors
raised here reach the user after the name of the file and the key.
"""

import re
from decimal import Decimal
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from r2reasoner.pool.cards import MOST_LEVELS, MOST_MODELS, Group, Price

_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def _not_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("expected a number, got true or false")
    return value


def _environment_name(value: Any) -> Any:
    if not isinstance(value, str) or not _VARIABLE.fullmatch(value):
        # The value is not shown: it may be the key itself.
        raise ValueError(
            "expected the name of an environment variable, like OPENAI_API_KEY, not the key itself"
        )
    return value


def _base_url(value: Any) -> Any:
    expected = "expected a URL like https://api.openai.com/v1"
    if not isinstance(value, str) or not value.isprintable():
        raise ValueError(expected)
    try:
        parts = urlsplit(value)
        named = parts.hostname is not None and parts.port != 0
    except ValueError:
        raise ValueError(expected) from None
    if parts.scheme not in ("http", "https") or not named:
        raise ValueError(expected)
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError("expected a URL without user, password, query or fragment")
    return value.rstrip("/")


def _printable(value: Any) -> Any:
    if not isinstance(value, str) or not value.isprintable() or value != value.strip() or not value:
        raise ValueError("expected one line of text without spaces around it")
    return value


_Text = Annotated[str, BeforeValidator(_printable), Field(max_length=200)]
_Whole = Annotated[int, BeforeValidator(_not_bool), Field(ge=1, le=10**9)]
_Seconds = Annotated[float, BeforeValidator(_not_bool), Field(gt=0, le=3600)]
_Dollars = Annotated[
    Decimal, BeforeValidator(_not_bool), Field(ge=0, le=1_000_000, decimal_places=18)
]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PoolTable(_Table):
    """`[pool]`. `decomposer` names a model; `allocator` one, or a built-in one, or `light:ROUTER`.

    `outcomes` is where calibrated and light allocators find measured outcomes. `splits`: the
    benchmark splits that the models were trained for, as `length`; none means any.
    """

    name: _Text
    decomposer: _Text
    allocator: _Text
    outcomes: _Text | None = None
    splits: tuple[_Text, ...] = ()


class EndpointTable(_Table):
    """`[endpoints.NAME]`: an OpenAI-compatible server, or a folder of models run in process.

    `key_env` is the name of the environment variable that holds the key. `concurrency` is the
    most calls in flight; time-outs are seconds, `read_timeout_s` of silence.
    """

    kind: Literal["openai", "embedded"] = "openai"
    base_url: Annotated[str, BeforeValidator(_base_url)] | None = None
    key_env: Annotated[str, BeforeValidator(_environment_name)] | None = None
    path: _Text | None = None
    concurrency: _Whole = 16
    connect_timeout_s: _Seconds = 10.0
    read_timeout_s: _Seconds = 120.0

    @model_validator(mode="after")
    def _belong_together(self) -> "EndpointTable":
        if self.kind == "openai":
            if self.base_url is None:
                raise ValueError("missing base_url: an openai endpoint needs the URL up to /v1")
            if self.path is not None:
                raise ValueError("path belongs to an embedded endpoint only")
        elif self.path is None:
            raise ValueError("missing path: an embedded endpoint needs the folder of its models")
        elif self.base_url is not None or self.key_env is not None:
            raise ValueError("base_url and key_env belong to an openai endpoint only")
        return self


class CardTable(_Table):
    """`[[workers]]` or `[[policies]]`: one model.

    Prices are dollars per million tokens, `price_source` where they were found; without them a
    hosted model takes its list price. `context` and `max_tokens` are tokens. `model` is the
    name at the endpoint, or the folder below an embedded endpoint's path. Of trained policies:
    `dial`, the settings of the dial that it reads, and `knows`, the workers that it can name.
    """

    name: _Text
    endpoint: _Text
    model: _Text
    group: Group | None = None
    input_price: _Dollars | None = None
    output_price: _Dollars | None = None
    cached_price: _Dollars | None = None
    price_source: _Text | None = None
    context: _Whole = 32_768
    max_tokens: _Whole | None = None
    concurrency: _Whole | None = None
    capabilities: frozenset[_Text] = frozenset()
    prompt: Literal["chat", "plain"] = "chat"
    plan_format: Literal["json", "line"] = "json"
    parameters: _Whole | None = None
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    dial: Annotated[int, Field(ge=0, le=MOST_LEVELS), BeforeValidator(_not_bool)] = 0
    knows: Annotated[tuple[_Text, ...], Field(max_length=MOST_MODELS)] = ()

    @model_validator(mode="after")
    def _belong_together(self) -> "CardTable":
        if (self.input_price is None) != (self.output_price is None):
            raise ValueError("input_price and output_price go together: give both or neither")
        if self.input_price is None:
            if self.cached_price is not None or self.price_source is not None:
                raise ValueError("cached_price and price_source need input_price and output_price")
        elif self.cached_price is not None and self.cached_price > self.input_price:
            raise ValueError("cached_price is above input_price")
        if self.max_tokens is not None and self.max_tokens > self.context:
            raise ValueError(f"max_tokens {self.max_tokens} is above context {self.context}")
        return self

    def price(self) -> Price | None:
        """Return the price that the file states, or None."""
        if self.input_price is None or self.output_price is None:
            return None
        source = f"pool file: {self.price_source}" if self.price_source else "pool file"
        return Price(self.input_price, self.output_price, self.cached_price, source)


class PoolFile(_Table):
    """A whole pool file, but for its `[router]` table."""

    pool: PoolTable
    endpoints: dict[_Text, EndpointTable] = Field(min_length=1)
    workers: list[CardTable] = Field(min_length=1)
    policies: list[CardTable] = []


class CardFile(_Table):
    """A file with one worker to add to a pool, and its endpoint unless the pool has that."""

    endpoints: dict[_Text, EndpointTable] = Field(default={}, max_length=1)
    workers: list[CardTable] = Field(min_length=1, max_length=1)
