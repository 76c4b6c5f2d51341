"""Print result files as Markdown tables: recipes/tables.py docs/results/*.json."""

import json
import sys
from pathlib import Path
from typing import Any


def main() -> None:
    """Print one table per result file."""
    for name in sys.argv[1:]:
        document = json.loads(Path(name).read_text())
        if isinstance(document, dict) and "rows" in document and "comparisons" in document:
            print(table(document["rows"], document["comparisons"]), end="\n\n")


def table(rows: list[dict[str, Any]], comparisons: list[dict[str, Any]]) -> str:
    """Return a result's table: best first; costs in millionths of a dollar per item."""
    versus = {c["against"]: c for c in comparisons if c["strategy"] == "r2"}
    first = rows[0]
    lines = [
        f"**{first['benchmark']} {first['split']}**, {first['n']:,} items",
        "",
        "| strategy | right, 95 % interval | workers, µ$ | net, µ$ | calls | r2 costs of this |",
        "|---|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda r: (-r["accuracy"], r["net_cost"])):
        ratio = versus.get(row["strategy"], {}).get("net_cost_ratio")
        low, high = row["ci95"]
        name = f"**{row['strategy']}**" if row["strategy"].startswith("r2") else row["strategy"]
        lines.append(
            f"| {name} | {row['accuracy']:.1%} ({low:.1%} to {high:.1%})"
            f" | {row['workers_cost'] * 1e6:.3g} | {row['net_cost'] * 1e6:.3g}"
            f" | {row['calls']:.1f} | {'' if ratio is None else f'{ratio:.1%}'} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
