import json

import pytest
from typer.testing import CliRunner

from r2reasoner.cli.app import app
from r2reasoner.pool.cards import Pool


@pytest.mark.usefixtures("nano")
def test_the_demo_measures_every_strategy_on_both_tasks(
    nano: Pool, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("R2REASONER_HOME", str(tmp_path_factory.mktemp("home")))
    done = CliRunner().invoke(app, ["demo", "--items", "12", "--json"])
    assert done.exit_code == 0, done.output
    scan, arithmetic = json.loads(done.stdout)
    for summary in (scan, arithmetic):
        rows = {row["strategy"]: row for row in summary["rows"]}
        assert {f"single:{card.name}" for card in nano.workers} <= rows.keys()
        assert rows["r2"]["n"] == 12
        best_single = max(r["accuracy"] for n, r in rows.items() if n.startswith("single:"))
        assert rows["r2"]["accuracy"] > best_single
        assert rows["r2"]["net_cost"] < rows["cot"]["net_cost"]
