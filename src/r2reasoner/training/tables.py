"""How a table of a recipe is read and written: a dataclass whose types say what is allowed.

    steps: Annotated[int, whole(0, 1000)] = 200      a value that keeps a rule
    schedule: Literal["linear", "cosine"] = "linear" one of some texts
    score: Score = field(default_factory=Score)      a table of its own
    lora: Lora | None = None                         a table, or "none"
    sources: tuple[Source, ...] = ()                 a list of tables
    run: Annotated[Run, Key("recipe")]               called otherwise in the file

`read_table` refuses unknown keys and values outside their range, naming file, table and key;
`write_table` writes TOML that reads as the same value again. Left out: what concerns several
fields at once, which is checked where the tables are put together (`recipe`).
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from decimal import Decimal, InvalidOperation
from types import UnionType
from typing import Annotated, Any, Final, Literal, NamedTuple, TypeVar, get_args, get_origin
from typing import get_type_hints as hints_of

from r2reasoner.config import did_you_mean
from r2reasoner.errors import ConfigError

T = TypeVar("T")
NONE: Final = "none"
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


class Rule(NamedTuple):
    """What a value must be, in words, and how it is read (ValueError or TypeError: it is not)."""

    expected: str
    read: Callable[[Any], Any]


class Key(NamedTuple):
    """What a field is called in a file, where that is not its own name."""

    name: str


def whole(low: int, high: int) -> Rule:
    """Return the rule of whole numbers from `low` to `high`."""

    def read(value: Any) -> int:
        number = _decimal(value)
        if not low <= number <= high or number != int(number):
            raise ValueError(value)
        return int(number)

    return Rule(f"a whole number from {low} to {high}", read)


def number(low: float, high: float, *, above: bool = False, below: bool = False) -> Rule:
    """Return the rule of numbers from `low` to `high`; `above`, `below`: without that end."""

    def read(value: Any) -> float:
        number = float(_decimal(value))
        if not low <= number <= high or (above and number == low) or (below and number == high):
            raise ValueError(value)
        return number

    lower = f"above {low:g}" if above else f"of at least {low:g}"
    return Rule(f"a number {lower} and {'below' if below else 'at most'} {high:g}", read)


def dollars(most: int) -> Rule:
    """Return the rule of amounts of money above 0; they stay exact."""

    def read(value: Any) -> Decimal:
        amount = _decimal(value)
        if not 0 < amount <= most:
            raise ValueError(value)
        return amount

    return Rule(f"dollars above 0 and at most {most}", read)


def text(*, empty: bool = False) -> Rule:
    """Return the rule of texts in one line, which may be `empty` or not."""

    def read(value: Any) -> str:
        if not isinstance(value, str) or _CONTROL.search(value) or not (value.strip() or empty):
            raise ValueError(value)
        return value

    return Rule("a text in one line" + (", or an empty one" if empty else ""), read)


def one_of(known: Iterable[str]) -> Rule:
    """Return the rule of some texts."""
    allowed = tuple(known)

    def read(value: Any) -> str:
        if not isinstance(value, str) or value not in allowed:
            raise ValueError(value)
        return value

    return Rule(" or ".join(json.dumps(name) for name in allowed), read)


def several(rule: Rule, *, none: bool = False) -> Rule:
    """Return the rule of lists whose members keep a rule; with `none`, also of the empty one."""

    def read(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list | tuple) or not (value or none):
            raise ValueError(value)
        return tuple(rule.read(member) for member in value)

    return Rule(f"a list, each member {rule.expected}", read)


def read_table(kind: type[T], raw: Any, file: str, path: str = "") -> T:
    """Return a table's value from what TOML gave. Raises ConfigError naming file, table and key."""
    if not isinstance(raw, Mapping):
        raise ConfigError(f"{file}: {path}: expected a table, [{path}]")
    columns = {column.key: column for column in _columns(kind)}
    values: dict[str, Any] = {}
    for key, value in raw.items():
        if key not in columns:
            where = f"[{path}] {key}" if path else f"[{key}]"
            raise ConfigError(f"{file}: {where}: unknown key{did_you_mean(key, columns)}")
        values[columns[key].name] = _read(columns[key], value, file, path)
    return kind(**values)


def write_table(value: Any, path: str = "") -> str:
    """Return a table, and all tables in it, as TOML with every key."""
    return "\n".join(_lines(value, path)).strip() + "\n"


class _Column(NamedTuple):
    """A field as a file has it: `table`: the dataclass it is one (or `many`) of, else its rule."""

    name: str
    key: str
    rule: Rule | None
    table: Any = None
    many: bool = False
    optional: bool = False


def _columns(kind: Any) -> tuple[_Column, ...]:
    hints = hints_of(kind, include_extras=True)
    return tuple(_column(declared.name, hints[declared.name]) for declared in fields(kind))


def _column(name: str, hint: Any) -> _Column:
    key = name
    if get_origin(hint) is Annotated:
        inner, *notes = get_args(hint)
        for note in notes:
            if isinstance(note, Rule):
                return _Column(name, key, note)
            if isinstance(note, Key):
                key, hint = note.name, inner
    if get_origin(hint) is Literal:
        return _Column(name, key, one_of(get_args(hint)))
    if hint is bool:
        return _Column(name, key, Rule("true or false", _flag))
    if get_origin(hint) is tuple:
        return _Column(name, key, None, get_args(hint)[0], many=True)
    if get_origin(hint) is UnionType:
        return _Column(name, key, None, get_args(hint)[0], optional=True)
    if is_dataclass(hint):
        return _Column(name, key, None, hint)
    raise TypeError(f"{name}: {hint} does not say what is allowed")


def _read(column: _Column, value: Any, file: str, path: str) -> Any:
    inner = f"{path}.{column.key}" if path else column.key
    if column.rule is None:
        if column.optional and value == NONE:
            return None
        if not column.many:
            return read_table(column.table, value, file, inner)
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{file}: {inner}: expected tables, [[{inner}]]")
        return tuple(read_table(column.table, member, file, inner) for member in value)
    try:
        return column.rule.read(value)
    except (ValueError, TypeError, InvalidOperation):
        raise ConfigError(
            f"{file}: [{path}] {column.key}: expected {column.rule.expected},"
            f" got {str(value)[:80]!r}"
        ) from None


def _lines(value: Any, path: str, *, in_list: bool = False) -> Iterator[str]:
    if path:
        yield f"[[{path}]]" if in_list else f"[{path}]"
    below: list[tuple[str, Any, bool]] = []
    for column in _columns(type(value)):
        own = getattr(value, column.name)
        if column.many:
            below += [(column.key, member, True) for member in own]
        elif is_dataclass(own):
            below.append((column.key, own, False))
        else:
            yield f"{column.key} = {_toml(own)}"
    for key, own, many in below:
        yield ""
        yield from _lines(own, f"{path}.{key}" if path else key, in_list=many)


def _toml(value: Any) -> str:
    if value is None:
        return json.dumps(NONE)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, tuple):
        return f"[{', '.join(_toml(member) for member in value)}]"
    return f"{value:f}" if isinstance(value, Decimal) else repr(value)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(value)
    return value


def _decimal(value: Any) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise TypeError(value)
    read = Decimal(repr(value) if isinstance(value, float) else value)
    if not read.is_finite():
        raise ValueError(value)
    return read
