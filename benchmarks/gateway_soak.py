"""Mixed load on one gateway for as long as wanted: its memory, its descriptors, both books.

The gateway is `r2reasoner serve` in a process of its own, before a provider that fails in every way
that the tests know. Load and checks are those of the tests (tests/load.py, tests/balance.py). At
the end streams are opened, all at once; half of their clients leave, and what that closes at the
provider is timed.

    python benchmarks/gateway_soak.py --minutes 60
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path
from signal import SIGTERM
from typing import Any, NamedTuple

from results_file import provenance, write_result

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import balance
import load
from r2reasoner.gateway.server import raise_descriptor_limit
from r2reasoner.ledger import Entry, Ledger
from r2reasoner.types import to_dollars

RESULT = Path(__file__).parent / "results" / "gateway_soak.json"
MOST_GROWTH = 1.05
MOST_CLOSING_S = 1.0
FIRST_REQUEST = 1_000_000_000
SAMPLES = 60
MUCH = Decimal(1_000_000)


class Sample(NamedTuple):
    """What the gateway had at a moment, in seconds from the start."""

    at_s: float
    rss_mib: float
    descriptors: int
    calls: int


async def sample(
    child: load.Child, provider: load.Provider, seconds: float, asking: asyncio.Task[Any]
) -> list[Sample]:
    """Look at a gateway again and again for so long, or until its load has failed."""
    started = time.monotonic()
    found = []
    for n in range(SAMPLES + 1):
        await asyncio.sleep(max(0.0, started + n * seconds / SAMPLES - time.monotonic()))
        at_s = round(time.monotonic() - started, 1)
        rss_mib = round(child.rss_mib, 1)
        found.append(Sample(at_s, rss_mib, child.descriptors, len(provider.books)))
        print(found[-1], file=sys.stderr)
        if asking.done():
            break
    return found


def growth(samples: Sequence[Sample]) -> float:
    """Return memory in the last quarter of the time by that in the second."""
    quarter = len(samples) // 4
    second, last = samples[quarter : 2 * quarter], samples[-quarter:]
    return statistics.median(s.rss_mib for s in last) / statistics.median(s.rss_mib for s in second)


def holds(check: Callable[..., None], *arguments: Any) -> bool:
    """Tell whether a check of the tests holds, and why not on stderr."""
    try:
        check(*arguments)
    except AssertionError as error:
        print(f"{check.__name__}: {str(error)[:2000]}", file=sys.stderr)
        return False
    return True


def books(
    ledger: Ledger, provider: load.Provider, entries: list[Entry], ends: list[load.End]
) -> dict[str, Any]:
    """Return what both books say, and whether all is equal that must be."""
    return {
        "ledger_equals_books": holds(balance.check_books, provider, entries, ends),
        "keys_equal_ledger": holds(balance.check_keys, ledger, entries, {}),
        "answers_equal_ledger": holds(balance.check_costs, ends, entries),
        "errors_as_openai_has_them": holds(balance.check_ends, ends),
        "provider_calls": len(provider.books),
        "ledger_entries": dict(Counter(entry.outcome.value for entry in entries)),
        "ledger_dollars": str(to_dollars(sum(entry.cost or 0 for entry in entries))),
        "keys_dollars": str(to_dollars(balance.spent_by_keys(ledger).total())),
    }


async def soak(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run it all, and return the result but for its header."""
    _, secrets = load.make_keys(
        folder, {"per_day": MUCH}, {}, {"per_month": Decimal("0.5")}, {"per_minute": 60}
    )
    often = [*secrets[:2] * 4, *secrets[2:]]
    wanted = load.mixed(FIRST_REQUEST, often, options.seed, first=FIRST_REQUEST)
    requests = load.Load(wanted)
    provider = load.Provider(
        faults=load.faulty(options.faults, options.seed), latency_s=options.latency, token_s=0.005
    )
    async with provider, load.serving(folder, provider.base_url, read_timeout_s=10.0) as child:
        warm = load.Wanted(0, load.body_of(0, "small"), secrets[0])
        await load.ask_all(child.base_url, [warm], 1)
        before = child.descriptors
        asking = asyncio.create_task(load.ask_all(child.base_url, requests, options.in_flight))
        samples = await sample(child, provider, options.minutes * 60, asking)
        requests.stop()
        ends = await asking
        with Ledger.open(load.ledger_in(folder)) as ledger:
            await load.until(lambda: balance.unsettled(ledger) == 0)
            told = books(ledger, provider, ledger.entries(), ends)
        await load.until(lambda: child.descriptors <= before)
        provider.fault_for = lambda call: None
        rounds = [
            await load.open_streams(child, provider, options.streams, secrets[0], token_s=3.0)
            for _ in range(3)
        ]
        status = await child.end(SIGTERM)
    seconds = samples[-1].at_s
    statuses = Counter("left" if end.left else str(end.status) for end in ends)
    codes = Counter(str(end.error["code"]) for end in ends if end.error and not end.left)
    return {
        "requests": len(ends),
        "requests_per_s": round(len(ends) / seconds, 1),
        "answered_whole": sum(end.whole for end in ends),
        "by_status": dict(statuses.most_common()),
        "errors": dict(codes.most_common()),
        **told,
        "complaints_in_log": len(child.complaints()),
        "exit_status": status,
        "rss_growth": round(growth(samples), 4),
        "most_growth": MOST_GROWTH,
        "descriptors_before": before,
        "descriptors_at_most": max(s.descriptors for s in samples),
        "descriptors_after": rounds[0].descriptors_before,
        "samples": samples,
        "streams": [round_._asdict() for round_ in rounds],
    }


def is_met(result: dict[str, Any]) -> bool:
    """Tell whether a soak shows what it is to show."""
    first, *_, last = result["streams"]
    return (
        all(value for name, value in result.items() if "equal" in name or "as_openai" in name)
        and result["complaints_in_log"] == result["exit_status"] == 0
        and result["rss_growth"] <= MOST_GROWTH
        and last["rss_after"] <= MOST_GROWTH * first["rss_after"]
        and last["descriptors_after"] <= result["descriptors_before"]
        and max(each["closing_s"] for each in result["streams"]) <= MOST_CLOSING_S
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--streams", type=int, default=1000, help="opened at once, at the end")
    parser.add_argument("--latency", type=float, default=0.5, help="the provider's, in seconds")
    parser.add_argument("--faults", type=float, default=0.1, help="share of calls that fail")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULT, help="where the result is written")
    options = parser.parse_args()
    raise_descriptor_limit()
    with tempfile.TemporaryDirectory() as folder:
        result = asyncio.run(soak(options, Path(folder)))
    settings = {name: value for name, value in vars(options).items() if name != "out"}
    head = {"what": "the gateway under mixed load", **provenance("starlette", "uvicorn")}
    write_result(options.out, {**head, **settings, **result, "met": is_met(result)})


if __name__ == "__main__":
    main()
