"""A result of `r2reasoner savings` as a table and a claim."""

from collections.abc import Mapping, Sequence
from typing import Any

from r2reasoner.errors import DataError
from r2reasoner.report.numbers import money, percent, percent_range, significant
from r2reasoner.report.page import Claim, Column, Line, Table, number, word
from r2reasoner.report.results import Saved


def saved_tables(result: Saved, source: int) -> list[Table]:
    """Return what logged requests cost today and would cost. Raises DataError."""
    try:
        return [_costs(result.document, source)]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DataError(
            f"{result.file}: expected a result of `r2reasoner savings`: {error!r}"
        ) from None


def _costs(document: Mapping[str, Any], source: int) -> Table:
    rows = document["rows"]
    columns = [
        Column("who answers", number=False),
        Column("cost of all requests"),
        Column("of today’s"),
        Column("requests priced"),
        Column("how known", number=False),
    ]
    lines = []
    for row in rows:
        share = row["of_today"]
        cells = [
            word(row["who"], strong=row["who"] == "r2"),
            number(money(row["dollars"]), row["dollars"]),
            number("" if share is None else f"{percent(share)} %", share, _range(row)),
            number(f"{row['requests']:,}", row["requests"]),
            word(row["how"]),
        ]
        lines.append(Line(cells, row["who"] == "r2"))
    notes = [*document["assumptions"]]
    title = f"{document['requests']:,} logged requests"
    return Table(title, columns, lines, notes, (source,))


def _range(row: Mapping[str, Any]) -> str:
    ends = row.get("of_today_ci95")
    return percent_range(tuple(ends)) if ends else ""


def saved_claims(results: Sequence[Saved]) -> list[Claim]:
    """Return what sampled requests say of saving and quality, where there are any."""
    claims = []
    for result in results:
        quality, saving = result.document.get("quality"), result.document.get("saving")
        if not isinstance(quality, dict) or not isinstance(saving, dict):
            continue
        share, ends = saving["share"], saving["ci95"]
        if share is None or quality["at_risk"] is None:
            continue
        saves = share >= 0
        text = f"{percent(share)} % less" if saves else f"{significant(1 - share)} times the cost"
        claims.append(
            Claim(
                against="the model in use today, on logged requests",
                saving=text,
                saving_range=percent_range(tuple(ends)) + " %" if ends else "",
                saves=saves,
                difference=f"{percent(quality['at_risk'])} % of answers at risk",
                difference_range=percent_range(tuple(quality["at_risk_ci95"] or ())[:2] or None),
                over=f"{quality['judged']:,} sampled requests",
            )
        )
    return claims
