"""Print result files as Markdown: first one line per benchmark, then a table per file.

python recipes/tables.py docs/results/*.json > docs/results/README.md
"""

import json
import sys
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def main() -> None:
    """Print the summary and the tables of the result files named."""
    documents = [json.loads(Path(name).read_text()) for name in sys.argv[1:]]
    results = [d for d in documents if isinstance(d, dict) and "comparisons" in d]
    print("# Results\n\nMade by `recipes/nano_results.sh`; costs in µ$ an item.\n")
    print("\n".join(summary([r for r in results if r["comparisons"] and _ours(r)])), end="\n\n")
    for document in results:
        print("\n".join(table(document["rows"], document["comparisons"])))
        origin = document["provenance"]
        print(f"\n`{origin['command']}`, commit {origin['commit'][:12]}, {origin['date'][:10]}\n")


def _ours(document: Row) -> Row | None:
    return next((row for row in document["rows"] if row["strategy"] == "r2"), None)


def summary(results: list[Row]) -> list[str]:
    """Return one line per benchmark: r2 beside the best single call and the paper's CoT."""
    lines = [
        "| test items | r2 right | best single call | the paper's CoT, strongest model"
        " | r2 against CoT, points | net cost: r2 | CoT | r2 / CoT |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for document in results:
        rows = {row["strategy"]: row for row in document["rows"]}
        r2, cot = rows["r2"], rows["cot"]
        singles = [row for name, row in rows.items() if name.startswith("single:")]
        best = max(singles, key=lambda row: row["accuracy"])
        versus = next(c for c in document["comparisons"] if c["against"] == "cot")
        low, high = versus["accuracy_difference_ci95"]
        lines.append(
            f"| {r2['benchmark']} {r2['split']} ({r2['n']:,}) | **{r2['accuracy']:.1%}**"
            f" | {best['accuracy']:.1%} ({best['strategy'].removeprefix('single:')})"
            f" | {cot['accuracy']:.1%} | {100 * versus['accuracy_difference']:+.1f}"
            f" [{100 * low:+.1f}, {100 * high:+.1f}]"
            f" | {_micro(r2['net_cost'])} | {_micro(cot['net_cost'])}"
            f" | **{versus['net_cost_ratio']:.1%}** |"
        )
    return lines


def table(rows: list[Row], comparisons: list[Row]) -> list[str]:
    """Return a result's table, best first."""
    versus = {c["against"]: c for c in comparisons if c["strategy"] == "r2"}
    first = rows[0]
    lines = [
        f"## {first['benchmark']} {first['split']}, {first['n']:,} items\n",
        "| strategy | right, 95 % interval | workers, µ$ | net, µ$ | calls | r2 costs of this |",
        "|---|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda r: (-r["accuracy"], r["net_cost"])):
        ratio = versus.get(row["strategy"], {}).get("net_cost_ratio")
        low, high = row["ci95"]
        name = f"**{row['strategy']}**" if row["strategy"].startswith("r2") else row["strategy"]
        lines.append(
            f"| {name} | {row['accuracy']:.1%} ({low:.1%} to {high:.1%})"
            f" | {_micro(row['workers_cost'])} | {_micro(row['net_cost'])}"
            f" | {row['calls']:.1f} | {'' if ratio is None else f'{ratio:.1%}'} |"
        )
    return lines


def _micro(dollars: float) -> str:
    return f"{dollars * 1e6:.3g}"


if __name__ == "__main__":
    main()
