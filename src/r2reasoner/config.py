"""Settings of the router: one dial, the caps, and the limits on what is read and planned.

They come from the optional `[router]` table of a pool file, and flags of the command line win over
it. Every value passes `settings`, the only check, so a `Settings` made by it is always valid.
Left out: what models there are (`pool.load`) and secrets, which never stand in a file.
"""

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from decimal import Decimal, InvalidOperation
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

from r2reasoner.errors import ConfigError
from r2reasoner.types import Pico, to_pico

MAX_FILE_BYTES: Final = 4 * 2**20
TABLE: Final = "router"
TRADE_OFF: Final = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How queries are answered. Build it with `settings`, which checks every value.

    `trade_off` is the dial from 0 (quality only) to 1 (cheapest). `max_cost` caps one query, in
    dollars; None is no cap. `deadline_s` is the time given to one query, in seconds.
    `max_answer_tokens` limits each call whose text goes into the answer. `pool` names a shipped
    pool or a pool file; None leaves the choice to `pool.load.find_pool`.
    """

    trade_off: float = TRADE_OFF
    max_cost: Decimal | None = None
    deadline_s: float = 300.0
    max_subtasks: int = 12
    max_query_bytes: int = 262_144
    max_plan_bytes: int = 65_536
    temperature: float = 0.0
    max_answer_tokens: int | None = None
    pool: str | None = None

    @property
    def cap(self) -> Pico | None:
        """The most that one query may cost, in pico-dollars; None is no cap."""
        return None if self.max_cost is None else to_pico(self.max_cost)


def settings(table: Mapping[str, Any] | None = None, source: str = "", **flags: Any) -> Settings:
    """Return settings from a `[router]` table with flags over it; a flag of None is not given.

    `source` names the file of the table in errors. Raises ConfigError for an unknown key or a
    value outside its range.
    """
    values: dict[str, Any] = {}
    if table is not None and not isinstance(table, Mapping):
        raise ConfigError(f"{source}: {TABLE}: expected a table, [{TABLE}]")
    for key, value in (table or {}).items():
        values[key] = _checked(key, value, _KEYS - {"pool"}, f"{source}: [{TABLE}] {key}")
    for key, value in flags.items():
        if value is not None:
            values[key] = _checked(key, value, _KEYS, _FLAGS.get(key, f"--{key.replace('_', '-')}"))
    return Settings(**values)


def load_settings(file: Path, **flags: Any) -> Settings:
    """Return the settings that a pool file states, with flags over them.

    Raises ConfigError for a file that cannot be read, an unknown key or a value outside its range.
    """
    return settings(read_toml(file).get(TABLE), str(file), **flags)


def read_toml(file: Path) -> dict[str, Any]:
    """Return a TOML file's tables, its floats as exact Decimals. Raises ConfigError."""
    try:
        with file.open("rb") as stream:
            raw = stream.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError(f"{file}: no such file") from None
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from error
    if len(raw) > MAX_FILE_BYTES:
        raise ConfigError(f"{file}: larger than {MAX_FILE_BYTES} bytes, so not a pool file")
    try:
        return tomllib.loads(raw.decode(), parse_float=Decimal)
    except UnicodeDecodeError:
        raise ConfigError(f"{file}: expected UTF-8 text") from None
    except (tomllib.TOMLDecodeError, RecursionError, ValueError, InvalidOperation) as error:
        raise ConfigError(f"{file}: not valid TOML: {error}") from None


def did_you_mean(word: str, known: Mapping[str, Any] | set[str] | frozenset[str]) -> str:
    """Return "; did you mean 'x'?" for a near miss, else the list of what is known."""
    close = get_close_matches(word, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(sorted(known))}"


def _checked(key: str, value: Any, known: frozenset[str], where: str) -> Any:
    if key not in known:
        raise ConfigError(f"{where}: unknown key{did_you_mean(key, known)}")
    expected, convert = _RULES[key]
    try:
        return convert(value)
    except (ValueError, TypeError, InvalidOperation):
        raise ConfigError(f"{where}: expected {expected}, got {str(value)[:80]!r}") from None


def _decimal(value: Any) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal | str):
        raise TypeError(value)
    number = Decimal(repr(value) if isinstance(value, float) else value)
    if not number.is_finite():
        raise ValueError(value)
    return number


def _number(low: float, high: float, *, above: bool = False) -> Callable[[Any], float]:
    def convert(value: Any) -> float:
        number = float(_decimal(value))
        if not low <= number <= high or (above and number == low):
            raise ValueError(value)
        return number

    return convert


def _whole(low: int, high: int) -> Callable[[Any], int]:
    def convert(value: Any) -> int:
        number = _decimal(value)
        if not low <= number <= high or number != int(number):
            raise ValueError(value)
        return int(number)

    return convert


def _dollars(value: Any) -> Decimal:
    number = _decimal(value)
    # The ledger keeps pico-dollars in 64 bits.
    if not 0 < number <= 1_000_000:
        raise ValueError(value)
    return number


def _name(value: Any) -> str:
    text = str(value) if isinstance(value, str | Path) else ""
    if not text.strip():
        raise ValueError(value)
    return text


_RULES: Final[Mapping[str, tuple[str, Callable[[Any], Any]]]] = {
    "trade_off": ("a number from 0 (quality only) to 1 (cheapest)", _number(0, 1)),
    "max_cost": (
        "dollars above 0 and at most 1000000 (leave it out for no cap)",
        _dollars,
    ),
    "deadline_s": ("seconds above 0 and at most 86400", _number(0, 86_400, above=True)),
    "max_subtasks": ("a whole number from 1 to 100", _whole(1, 100)),
    "max_query_bytes": ("a whole number of bytes from 1 to 16777216", _whole(1, 2**24)),
    "max_plan_bytes": ("a whole number of bytes from 64 to 1048576", _whole(64, 2**20)),
    "temperature": ("a number from 0 to 2", _number(0, 2)),
    "max_answer_tokens": (
        "a whole number of tokens from 1 to 2147483648 (leave it out for the models' own)",
        _whole(1, 2**31),
    ),
    "pool": ("the name of a shipped pool or the path of a pool file", _name),
}
_KEYS: Final = frozenset(field.name for field in fields(Settings))
_FLAGS: Final = {"deadline_s": "--deadline"}
