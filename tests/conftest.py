"""Makes the modules of this folder importable from the folders below it, and shares fixtures."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from r2reasoner.ledger import Ledger
from r2reasoner.pool.cards import Pool
from r2reasoner.pool.load import load_pool, shipped

# A busy machine is no failure.
settings.register_profile("r2", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("r2")


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(tmp_path / "ledger.db") as opened:
        yield opened


@pytest.fixture(scope="session")
def nano() -> Pool:
    """The shipped nano pool, with its weights."""
    if "nano" not in shipped():
        pytest.skip("no nano pool is shipped with this checkout: `r2reasoner nano train` makes it")
    return load_pool("nano")
