"""Pool files: one TOML file names the models at hand, where they are reached and what they cost.

    [pool]        name, decomposer, allocator, outcomes, splits
    [endpoints.X] kind, base_url, key_env, path, concurrency, time-outs
    [[workers]]   one model each, from weakest to strongest
    [[policies]]  models that only decompose or allocate
    [router]      optional, see `config`

A card file has one worker to add to a pool, and its endpoint unless the pool has it. Unknown keys
are refused, numbers stay exact, and keys to providers stand in the environment, never here.
Nothing is reached and no file but the one named is opened: that is `r2reasoner pool check`.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Final

from pydantic import ValidationError

from r2reasoner.config import TABLE, did_you_mean, read_toml, settings
from r2reasoner.errors import ConfigError
from r2reasoner.pool.cards import LIGHT, Card, Endpoint, Pool
from r2reasoner.pool.prices import public_price
from r2reasoner.pool.tables import CardFile, CardTable, EndpointTable, PoolFile, PoolTable

SHIPPED: Final = Path(__file__).resolve().parent
PACKAGE: Final = SHIPPED.parent
POOL_ENV: Final = "R2REASONER_POOL"
DEFAULT: Final = "nano"
ALLOCATORS: Final = frozenset({"calibrated", "ladder"})

_SHOWN_PROBLEMS: Final = 8
_DEFAULT_MAX_TOKENS: Final = 1024


def shipped() -> tuple[str, ...]:
    """Return the names of the pools that come with the package."""
    return tuple(sorted(file.stem for file in SHIPPED.glob("*.toml")))


def find_pool(path_or_name: str | Path | None = None) -> Path:
    """Return the file of a shipped pool's name, or of a path.

    None means $R2REASONER_POOL, else the nano pool; a file that merely lies in the working folder
    is never taken, because a pool file says which hosts get the keys. Raises ConfigError.
    """
    wanted = path_or_name or os.environ.get(POOL_ENV) or DEFAULT
    names = shipped()
    if str(wanted) in names:
        return SHIPPED / f"{wanted}.toml"
    file = Path(wanted).expanduser()
    if file.is_file():
        return file
    hint = did_you_mean(str(wanted), set(names))
    raise ConfigError(f"no pool {str(wanted)!r}: neither a file nor a shipped pool{hint}")


def load_pool(path_or_name: str | Path | None = None) -> Pool:
    """Return the pool of a shipped pool's name (`nano`, `paper`) or of a pool file.

    Relative paths in it are taken from the folder of the file; in a shipped pool, from the
    package. Raises ConfigError, naming file and key, for whatever is wrong in it.
    """
    file = find_pool(path_or_name)
    raw = read_toml(file)
    settings(raw.pop(TABLE, None), str(file))
    try:
        return _pool(PoolFile.model_validate(raw), file)
    except ValidationError as error:
        raise ConfigError(_list(file, (_explain(e, raw) for e in error.errors()))) from None


def load_card(file: Path, pool: Pool) -> Card:
    """Return the worker of a card file, which is to join a pool.

    Relative paths in it are taken from the folder of the file. Raises ConfigError, naming file and
    key, for whatever is wrong in it, or taken in the pool.
    """
    raw = read_toml(file)
    if "pool" in raw:
        raise ConfigError(
            f"{file}: a whole pool file; expected one [[workers]] table and, if it is new, its"
            " [endpoints.X]"
        )
    try:
        parsed = CardFile.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(
            _list(file, (_explain(e, raw, CardFile) for e in error.errors()))
        ) from None
    base = file.resolve().parent
    given = {name: _endpoint(name, table, base) for name, table in parsed.endpoints.items()}
    held = {card.endpoint.name: card.endpoint for card in (*pool.workers, *pool.policies.values())}
    problems = list(_misfits(parsed, given, held, pool))
    if problems:
        raise ConfigError(_list(file, problems))
    return _card(parsed.workers[0], given | held)


def _misfits(
    parsed: CardFile, given: dict[str, Endpoint], held: dict[str, Endpoint], pool: Pool
) -> Iterable[str]:
    """Yield what does not fit between a card file and a pool."""
    (table,) = parsed.workers
    where = f"workers 1 ({table.name})"
    if table.name in {card.name for card in (*pool.workers, *pool.policies.values())}:
        yield f"{where}: pool {pool.name!r} has a model of that name; take another"
    if table.name in ALLOCATORS:
        yield f"{where}: {table.name!r} is the name of a built-in allocator; take another"
    for name, endpoint in given.items():
        if held.get(name, endpoint) != endpoint:
            yield f"endpoints.{name}: pool {pool.name!r} has another of that name; take another"
        if name != table.endpoint:
            yield f"endpoints.{name}: {table.name!r} does not use it"
    kinds = {name: endpoint.kind for name, endpoint in (given | held).items()}
    yield from _misplaced(table, kinds, where, f"this file or pool {pool.name!r}")


def _pool(parsed: PoolFile, file: Path) -> Pool:
    problems = list(_disagreements(parsed))
    if problems:
        raise ConfigError(_list(file, problems))
    folder = file.resolve().parent
    base = PACKAGE if folder == SHIPPED else folder
    endpoints = {name: _endpoint(name, table, base) for name, table in parsed.endpoints.items()}
    policies = [_card(table, endpoints) for table in parsed.policies]
    outcomes = parsed.pool.outcomes
    return Pool(
        name=parsed.pool.name,
        workers=tuple(_card(table, endpoints) for table in parsed.workers),
        policies={card.name: card for card in policies},
        decomposer=parsed.pool.decomposer,
        allocator=parsed.pool.allocator,
        outcomes=None if outcomes is None else base / Path(outcomes).expanduser(),
        source=file.resolve(),
        splits=parsed.pool.splits,
    )


def _endpoint(name: str, table: EndpointTable, base: Path) -> Endpoint:
    return Endpoint(
        name=name,
        kind=table.kind,
        base_url=table.base_url or "",
        key_env=table.key_env,
        path=None if table.path is None else base / Path(table.path).expanduser(),
        concurrency=table.concurrency,
        connect_timeout_s=table.connect_timeout_s,
        read_timeout_s=table.read_timeout_s,
    )


def _card(table: CardTable, endpoints: dict[str, Endpoint]) -> Card:
    endpoint = endpoints[table.endpoint]
    price = table.price()
    if price is None and endpoint.kind == "openai":
        price = public_price(table.model, endpoint.base_url)
    return Card(
        name=table.name,
        endpoint=endpoint,
        model=table.model,
        price=price,
        group=table.group,
        context=table.context,
        max_tokens=table.max_tokens or min(_DEFAULT_MAX_TOKENS, table.context),
        concurrency=table.concurrency,
        capabilities=table.capabilities,
        prompt=table.prompt,
        plan_format=table.plan_format,
        parameters=table.parameters,
        sha256=table.sha256,
        dial=table.dial,
        knows=table.knows,
    )


def _disagreements(parsed: PoolFile) -> Iterable[str]:
    """Yield what is wrong between tables that are right by themselves."""
    seen: set[str] = set()
    kinds = {name: endpoint.kind for name, endpoint in parsed.endpoints.items()}
    for kind, tables in (("workers", parsed.workers), ("policies", parsed.policies)):
        for number, table in enumerate(tables, 1):
            where = f"{kind} {number} ({table.name})"
            if table.name in seen:
                yield f"{where}: name {table.name!r} is taken; every model needs its own"
            if table.name in ALLOCATORS:
                yield f"{where}: {table.name!r} is the name of a built-in allocator; take another"
            seen.add(table.name)
            yield from _misplaced(table, kinds, where)
    if parsed.pool.decomposer not in seen:
        yield (
            f"pool.decomposer: no worker or policy {parsed.pool.decomposer!r}"
            f"{did_you_mean(parsed.pool.decomposer, seen)}"
        )
    light = parsed.pool.allocator.startswith(LIGHT)
    if not light and parsed.pool.allocator not in seen | ALLOCATORS:
        yield (
            f"pool.allocator: {parsed.pool.allocator!r} is neither built in nor a worker or policy"
            f"{did_you_mean(parsed.pool.allocator, seen | ALLOCATORS)}"
        )


def _misplaced(
    table: CardTable, kinds: Mapping[str, str], where: str, files: str = "this file"
) -> Iterable[str]:
    """Yield where a card is at odds with its endpoint; `kinds` are those of all in `files`."""
    kind = kinds.get(table.endpoint)
    if kind is None:
        yield (
            f"{where}: no [endpoints.{table.endpoint}] in {files}"
            f"{did_you_mean(table.endpoint, set(kinds))}"
        )
    elif kind == "embedded":
        folder = PurePosixPath(table.model)
        if folder.is_absolute() or ".." in folder.parts or "\\" in table.model:
            yield f"{where}: model: expected a folder inside the endpoint's path"
    elif table.sha256 is not None:
        yield f"{where}: sha256 belongs to models of an embedded endpoint only"


def _list(file: Path, problems: Iterable[str]) -> str:
    lines = list(problems)
    if len(lines) == 1:
        return f"{file}: {lines[0]}"
    hidden = len(lines) - _SHOWN_PROBLEMS
    more = [f"and {hidden} more"] if hidden > 0 else []
    return "\n  ".join([f"{file}: {len(lines)} problems", *lines[:_SHOWN_PROBLEMS], *more])


def _explain(
    error: Any, raw: dict[str, Any], file: type[PoolFile] | type[CardFile] = PoolFile
) -> str:
    """Return one validation error in a user's words, without showing the value of a bad key."""
    *parents, last = error["loc"] or ("file",)
    where = _where(error["loc"], raw)
    match error["type"]:
        case "extra_forbidden":
            if isinstance(last, str) and last.lower() in ("api_key", "key", "token", "secret"):
                return (
                    f"{where}: keys never stand in a pool file; put the key in an environment "
                    "variable and its name in key_env of the endpoint"
                )
            return f"{where}: unknown key{did_you_mean(str(last), _known_keys(parents, file))}"
        case "missing":
            return f"{where}: missing"
        case "literal_error" | "enum":
            expected = error["ctx"]["expected"]
            return f"{where}: expected {expected}, got {str(error['input'])[:80]!r}"
        case "value_error":
            return f"{where}: {error['ctx']['error']}"
        case _:
            return f"{where}: {error['msg'][0].lower()}{error['msg'][1:]}"


def _known_keys(parents: list[Any], file: type[PoolFile] | type[CardFile]) -> set[str]:
    match parents:
        case []:
            return {*file.model_fields} | ({TABLE} if file is PoolFile else set())
        case ["pool"]:
            return set(PoolTable.model_fields)
        case ["endpoints", _]:
            return set(EndpointTable.model_fields)
        case _:
            return set(CardTable.model_fields)


def _where(loc: tuple[Any, ...], raw: dict[str, Any]) -> str:
    match loc:
        case ("workers" | "policies" as kind, int() as index, *rest):
            table = raw[kind][index]
            name = table.get("name") if isinstance(table, dict) else None
            label = f"{kind} {index + 1}" + (f" ({name})" if isinstance(name, str) else "")
            return ": ".join([label, *(str(part) for part in rest)])
        case _:
            return ".".join(str(part) for part in loc) or "file"
