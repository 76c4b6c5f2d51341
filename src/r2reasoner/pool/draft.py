"""A first pool file, made of what `discover` found, and the writing of it in one step."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

from r2reasoner.errors import ConfigError
from r2reasoner.pool.cards import Group
from r2reasoner.pool.discover import Listed, Source
from r2reasoner.pool.load import ALLOCATORS

_THINKING_MAX_TOKENS: Final = 8192


def pool_text(sources: Sequence[Source], name: str) -> str:
    """Return a pool file of all models of some sources, weakest first.

    Raises ConfigError where the sources have no model.
    """
    workers = _ordered(sources)
    if not workers:
        raise ConfigError("no model at hand to write a pool file of")
    medium = [worker for worker in workers if worker[1].group is Group.MEDIUM]
    # A plan by the strongest model would often cost as much as its answer.
    decomposer = (medium or workers)[-1][2]
    blocks = [_HEAD.format(name=_quoted(name), decomposer=_quoted(decomposer))]
    blocks += [_endpoint_text(source) for source in sources]
    if any(source.key_env is None for source, _, _ in workers):
        blocks.append(_LOCAL_PRICES)
    blocks += [_worker_text(source, listed, unique) for source, listed, unique in workers]
    return "\n".join(blocks)


def _ordered(sources: Iterable[Source]) -> list[tuple[Source, Listed, str]]:
    """Return all models by group, in each source's own order, with names that are unique."""
    rank = {Group.SMALL: 0, None: 1, Group.MEDIUM: 1, Group.LARGE: 2}
    pairs = [(source, listed) for source in sources for listed in source.models]
    pairs.sort(key=lambda pair: rank[pair[1].group])
    count = Counter(listed.model for _, listed in pairs)
    return [
        (
            source,
            listed,
            f"{listed.model}@{source.name}"
            if count[listed.model] > 1 or listed.model in ALLOCATORS
            else listed.model,
        )
        for source, listed in pairs
    ]


def _quoted(text: str) -> str:
    # A JSON string of printable characters is a TOML string.
    return json.dumps(text, ensure_ascii=False)


def _endpoint_text(source: Source) -> str:
    lines = [f"[endpoints.{source.name}]", f"base_url = {_quoted(source.base_url)}"]
    if source.key_env:
        lines.append(f"key_env = {_quoted(source.key_env)}")
    return "\n".join(lines) + "\n"


def _worker_text(source: Source, listed: Listed, name: str) -> str:
    lines = ["[[workers]]", f"name = {_quoted(name)}"]
    if listed.group:
        lines.append(f"group = {_quoted(listed.group)}")
    lines += [f"endpoint = {_quoted(source.name)}", f"model = {_quoted(listed.model)}"]
    lines.append(f"context = {listed.context}")
    if listed.thinks:
        lines.append(f"max_tokens = {_THINKING_MAX_TOKENS}   # thinking counts")
    known = ", ".join(map(_quoted, listed.capabilities))
    lines.append(
        f"capabilities = [{known}]   # and {_CAN}" if known else f"# capabilities = [{_CAN}]"
    )
    if source.key_env is None:
        lines += ['# input_price = "0"', '# output_price = "0"']
    return "\n".join(lines) + "\n"


_CAN: Final = ", ".join(map(_quoted, ("tools", "images", "json", "n")))

_HEAD: Final = """\
# Written by `r2reasoner init`. Order the workers from weakest to strongest, delete those that you
# do not want, then: r2reasoner pool check --pool THIS_FILE
# What the gateway may ask a model for beyond text stands in its `capabilities`; to find out:
# r2reasoner pool check --capabilities --pool THIS_FILE
# Keys never stand here: key_env is the NAME of the environment variable that holds the key.

[pool]
name = {name}
decomposer = {decomposer}
allocator = "ladder"   # "calibrated" once `r2reasoner calibrate` has measured the workers
"""

_LOCAL_PRICES: Final = """\
# Models on this machine have no list price. Say in dollars per million tokens what they cost you
# (input_price and output_price; "0" is free). Until then their cost is unknown, and a query with
# a cap does not call them.
"""
