"""The result of `r2reasoner savings`: counts, costs and verdicts, as one JSON document."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any, Final

import numpy as np

from r2reasoner.evaluation.bootstrap import Interval, Ratio, intervals
from r2reasoner.savings.logs import Logged, Logs
from r2reasoner.savings.sample import SampleRow
from r2reasoner.savings.today import UNKNOWN, Paid, by_source
from r2reasoner.savings.unpaid import Estimate, Outlook
from r2reasoner.types import PICO_PER_DOLLAR, Pico

WHAT: Final = "savings"
OURS: Final = "r2"
NORMAL: Final = 1.959964
"""Standard deviations that 95 % of a normal distribution lie within."""
Pairs = Sequence[tuple[Logged, SampleRow]]


@dataclass(frozen=True, slots=True)
class Sampled:
    """A sample that was paid for: its rows, how many were drawn, and what ended it early."""

    pairs: Pairs
    drawn: int
    stopped: str | None
    seed: int


def document(
    logs: Logs, costs: Sequence[Paid], outlook: Outlook, sampled: Sampled | None
) -> dict[str, Any]:
    """Return the result. `costs` are those of the requests, in order; dollars are floats."""
    known = [one.cost for one in costs if one.cost is not None]
    today = sum(known) if known else None
    priced = [c is not None and r.usage is not None for c, r in _both(logs, costs)]
    comparable = sum(c.cost or 0 for c, ok in zip(costs, priced, strict=True) if ok)
    measured = None if sampled is None else _measured(sampled, logs, costs)
    base = {
        "what": WHAT,
        "requests": len(logs.requests),
        "left_out": {str(reason): n for reason, n in logs.left_out.items() if n},
        "bad_lines": logs.bad,
        "today": {
            "dollars": _dollars(today),
            "priced": len(known),
            "unpriced": len(costs) - len(known),
            "price_sources": by_source(costs),
            "models": _models(logs, costs),
        },
        "rows": _rows(outlook, today, comparable, sum(priced), len(known), measured),
        "assumptions": _assumptions(costs, outlook, priced, measured),
        "p_right": outlook.p_right,
    }
    return base | {"saving": None, "quality": None, "sample": None} | (measured or {})


def _both(logs: Logs, costs: Sequence[Paid]) -> list[tuple[Pico | None, Logged]]:
    return [(one.cost, r) for one, r in zip(costs, logs.requests, strict=True)]


def _models(logs: Logs, costs: Sequence[Paid]) -> dict[str, Any]:
    counts = Counter(r.model for r in logs.requests)
    sums: dict[str, Pico] = {}
    for cost, request in _both(logs, costs):
        sums[request.model] = sums.get(request.model, 0) + (cost or 0)
    unknown = Counter(r.model for cost, r in _both(logs, costs) if cost is None)
    return {
        model: {
            "requests": n,
            "unpriced": unknown[model],
            "dollars": None if unknown[model] == n else _dollars(sums[model]),
        }
        for model, n in counts.most_common()
    }


def _rows(
    outlook: Outlook,
    today: Pico | None,
    comparable: Pico,
    compared: int,
    priced: int,
    measured: dict[str, Any] | None,
) -> list[dict[str, Any]]:
    rows = [_row("today", today, 1.0 if today else None, priced, "as logged")]
    ours = outlook.router
    if measured is not None and measured["saving"]["share"] is not None and today is not None:
        share = 1 - measured["saving"]["share"]
        ends = measured["saving"]["ci95"]
        how = f"measured on {measured['sample']['priced']:,} sampled requests"
        row = _row(OURS, round(today * share), share, priced, how)
        row["of_today_ci95"] = None if ends is None else [1 - ends[1], 1 - ends[0]]
        rows.append(row)
    elif ours.cost is None and ours.low is not None and ours.high is not None:
        rows += [
            _estimated(Estimate("r2, at least", ours.low, ours.how), comparable, compared),
            _estimated(Estimate("r2, at most", ours.high, ours.how), comparable, compared),
        ]
    else:
        rows.append(_estimated(ours, comparable, compared))
    rows += [_estimated(one, comparable, compared) for one in outlook.workers]
    return rows


def _estimated(one: Estimate, comparable: Pico, compared: int) -> dict[str, Any]:
    share = None if one.cost is None or not comparable else one.cost / comparable
    return _row(one.who, one.cost, share, compared, one.how)


def _row(
    who: str, cost: Pico | None, share: float | None, requests: int, how: str
) -> dict[str, Any]:
    return {
        "who": who,
        "dollars": _dollars(cost),
        "of_today": share,
        "of_today_ci95": None,
        "requests": requests,
        "how": how,
    }


def _assumptions(
    costs: Sequence[Paid],
    outlook: Outlook,
    priced: Sequence[bool],
    measured: dict[str, Any] | None,
) -> list[str]:
    told = list(outlook.assumptions)
    unknown = sum(one.source == UNKNOWN for one in costs)
    if unknown:
        told.append(
            f"{unknown:,} of {len(costs):,} requests have no known price today; they count in no"
            " cost. Put their model into the pool file with its price."
        )
    if measured is not None and "agreement" in measured["quality"]["judged_by"]:
        told.append(
            "Where answers were judged by agreement, one that says the same in other words counts"
            " as at risk: the risk is at most what is shown. --judge MODEL compares such answers."
        )
    apart = len(priced) - sum(priced) - unknown
    if apart:
        told.append(f"{apart:,} requests have a cost but no token counts, so no estimate.")
    return told


def _measured(sampled: Sampled, logs: Logs, costs: Sequence[Paid]) -> dict[str, Any]:
    of_id = {r.id: cost for cost, r in _both(logs, costs)}
    rows = [row for _, row in sampled.pairs]
    paid = [
        (row.cost, today)
        for row in rows
        if (today := of_id[row.id]) is not None and row.cost is not None
    ]
    share, ends = _ratio([a for a, _ in paid], [b for _, b in paid], sampled.seed)
    quality = _quality([row.as_good for row in rows])
    again = _quality([r.again_as_good for r in rows if r.again_by is not None])
    unpriced = sum(row.cost is None for row in rows)
    return {
        "saving": {
            "share": None if share is None else 1 - share,
            "ci95": None if ends is None else [1 - ends[1], 1 - ends[0]],
        },
        "quality": {
            **quality,
            "judged_by": dict(Counter(row.by for row in rows)),
            "failed": sum(row.failed for row in rows),
            "today_asked_again": again if again["judged"] else None,
        },
        "sample": {
            "drawn": sampled.drawn,
            "asked": len(rows),
            "priced": len(paid),
            "unpriced": unpriced,
            "stopped": sampled.stopped,
            "dollars": _spent(rows),
            "models": dict(sum((Counter(row.models) for row in rows), Counter[str]())),
        },
    }


def _spent(rows: Sequence[SampleRow]) -> float | None:
    costs = [
        cost
        for row in rows
        for cost in (row.cost, row.judge_cost, row.again_cost if row.again_by else 0)
    ]
    known = [cost for cost in costs if cost is not None]
    return _dollars(sum(known)) if len(known) == len(costs) else None


def _quality(verdicts: Sequence[bool | None]) -> dict[str, Any]:
    judged = [verdict for verdict in verdicts if verdict is not None]
    bad = sum(not good for good in judged)
    return {
        "at_risk": bad / len(judged) if judged else None,
        "at_risk_ci95": wilson(bad, len(judged)),
        "judged": len(judged),
        "unscored": len(verdicts) - len(judged),
    }


def wilson(count: int, whole: int) -> Interval | None:
    """Return the 95 % interval of a share: also of none in a few, where a bootstrap says 0 to 0."""
    if not whole:
        return None
    share, square = count / whole, NORMAL**2
    middle = (share + square / (2 * whole)) / (1 + square / whole)
    reach = NORMAL * sqrt(share * (1 - share) / whole + square / (4 * whole**2))
    reach /= 1 + square / whole
    return [max(0.0, middle - reach), min(1.0, middle + reach)]


def _ratio(
    above: Sequence[int], below: Sequence[int], seed: int
) -> tuple[float | None, Interval | None]:
    if not below or not sum(below):
        return None, None
    ratio = Ratio(np.array(above, float), np.array(below, float))
    (ends,) = intervals([ratio], seed)
    return sum(above) / sum(below), ends


def _dollars(pico: Pico | None) -> float | None:
    return None if pico is None else pico / PICO_PER_DOLLAR
