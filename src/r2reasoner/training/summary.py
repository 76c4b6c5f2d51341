"""What a training run cost and how it went, by stage, from the lines of its metrics. Pure."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

from r2reasoner.bill import show_money
from r2reasoner.training.controls import Unparseable, one_model_alarm, unparseable_plans
from r2reasoner.training.metrics import (
    BILL,
    NOT_FINITE,
    Row,
    billed,
    last_figures,
    resolve,
)
from r2reasoner.types import PICO_PER_DOLLAR

SECONDS_PER_HOUR: Final = 3600


def summarise(lines: list[Row], done: Collection[str] = ()) -> dict[str, Any]:
    """Return the summary of a run: `total` and, for each stage, the bill and the last figures.

    The bill is of all lines; `dollars` leaves out the `unpriced` calls. `done` names the stages
    that are.
    """
    rows = resolve(lines)
    bill = billed(lines)
    last = last_figures(rows)
    plans = {one.stage: one for one in unparseable_plans(rows)}
    stages = []
    for stage in dict.fromkeys([*bill, *sorted(done)]):
        figures = dict(last.get(stage, {}))
        shares = {m: v for m, v in (figures.pop("shares", None) or {}).items() if v is not None}
        of_stage = plans.get(stage, Unparseable(stage, 0, 0, {}))
        stages.append(
            {
                "stage": stage,
                "done": stage in done,
                "step": figures.pop("step", None),
                **_bill(bill.get(stage, {})),
                "plans": of_stage.plans,
                "unparseable": of_stage.unparseable,
                "faults": of_stage.faults,
                "dropped": _count(rows, stage, "dropped"),
                NOT_FINITE: _count(lines, stage, NOT_FINITE),
                "shares": shares or None,
                "alarm": one_model_alarm(shares),
                "last": figures,
            }
        )
    total = {name: sum(paid[name] for paid in bill.values()) for name in BILL}
    return {"total": _bill(total), "stages": stages}


def markdown(summary: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of a summary for people."""
    stages = summary["stages"]
    yield from ("# Summary of a training run", "", "## Bill", "")
    yield from _bill_table(stages, summary["total"])
    if any(s["plans"] for s in stages):
        yield from ("", "## Unparseable plans", "")
        yield from _plans_table(stages)
    if any(s["last"] for s in stages):
        yield from ("", "## Last figures", "")
        yield from _figures_table([s for s in stages if s["last"]])
    if any(s["shares"] for s in stages):
        yield from ("", "## Share of the subtasks by model", "")
        yield from _shares_table([s for s in stages if s["shares"]])
    yield from _trouble(stages)


def _bill(paid: Mapping[str, float]) -> dict[str, Any]:
    return {
        "dollars": paid.get("paid_pico", 0) / PICO_PER_DOLLAR,
        "calls": paid.get("calls", 0),
        "unpriced": paid.get("unpriced", 0),
        "hours": paid.get("seconds", 0) / SECONDS_PER_HOUR,
    }


def _count(rows: list[Row], stage: str, name: str) -> int:
    return round(sum(row.get(name) or 0 for row in rows if row["stage"] == stage))


def _bill_table(stages: list[Row], total: Mapping[str, Any]) -> Iterator[str]:
    yield "| stage | done | last step | paid | calls | hours |"
    yield "|---|---|---:|---:|---:|---:|"
    for s in stages:
        done, step = "yes" if s["done"] else "no", "" if s["step"] is None else f"{s['step']:,}"
        yield f"| {s['stage']} | {done} | {step} | {_paid(s)} | {s['calls']:,} | {s['hours']:.3f} |"
    yield f"| all | | | {_paid(total)} | {total['calls']:,} | {total['hours']:.3f} |"


def _plans_table(stages: list[Row]) -> Iterator[str]:
    yield "| stage | plans | unparseable | share | why |"
    yield "|---|---:|---:|---:|---|"
    for s in stages:
        if s["plans"]:
            why = ", ".join(f"{fault} {count:,}" for fault, count in s["faults"].items())
            share = s["unparseable"] / s["plans"]
            yield f"| {s['stage']} | {s['plans']:,} | {s['unparseable']:,} | {share:.2%} | {why} |"


def _figures_table(stages: list[Row]) -> Iterator[str]:
    yield f"| | {' | '.join(s['stage'] for s in stages)} |"
    yield f"|---|{'---:|' * len(stages)}"
    for name in dict.fromkeys(name for s in stages for name in s["last"]):
        values = (_shown(s["last"][name]) if name in s["last"] else "" for s in stages)
        yield f"| {name} | {' | '.join(values)} |"


def _shares_table(stages: list[Row]) -> Iterator[str]:
    models = list(dict.fromkeys(m for s in stages for m in s["shares"]))
    yield f"| stage | {' | '.join(models)} |"
    yield f"|---|{'---:|' * len(models)}"
    for s in stages:
        shares = (s["shares"].get(model) for model in models)
        yield f"| {s['stage']} | {' | '.join('' if v is None else f'{v:.1%}' for v in shares)} |"
    for s in stages:
        if s["alarm"]:
            yield from ("", f"**Alarm** in {s['stage']}: {s['alarm']}.")


def _trouble(stages: list[Row]) -> Iterator[str]:
    troubled = [s for s in stages if s["dropped"] or s[NOT_FINITE] or s["unpriced"]]
    if troubled:
        yield from ("", "## Trouble", "")
    for s in troubled:
        yield (
            f"- {s['stage']}: {s['dropped']:,} groups of rollouts dropped; {s[NOT_FINITE]:,}"
            f" figures that were not finite; {s['unpriced']:,} calls of unknown price"
        )


def _paid(bill: Mapping[str, Any]) -> str:
    paid = show_money(round(bill["dollars"] * PICO_PER_DOLLAR))
    return f"{paid} + unknown" if bill["unpriced"] else paid


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
