"""Makes the modules of this folder importable from the folders below it, and shares fixtures."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from r2reasoner.ledger import Ledger
from r2reasoner.pool.cards import Pool
from r2reasoner.pool.load import load_pool, shipped
from training_runs import train_tiny

if TYPE_CHECKING:
    from postgres import Cluster

# A busy machine is no failure.
settings.register_profile("r2", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("r2")


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(tmp_path / "ledger.db") as opened:
        yield opened


@pytest.fixture(scope="session")
def postgres() -> "Iterator[Cluster]":
    """A PostgreSQL server of this process."""
    pytest.importorskip("psycopg", reason="PostgreSQL needs psycopg: r2reasoner[postgres]")
    from postgres import cluster

    with cluster() as started:
        yield started


@pytest.fixture(params=["sqlite", "postgresql"])
def db(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Where an empty database is, of each kind."""
    if request.param == "sqlite":
        yield str(tmp_path / "l.db")
    else:
        with request.getfixturevalue("postgres").schema() as url:
            yield url


@pytest.fixture(scope="session")
def nano() -> Pool:
    """The shipped nano pool, with its weights."""
    if "nano" not in shipped():
        pytest.skip("no nano pool is shipped with this checkout: `r2reasoner nano train` makes it")
    return load_pool("nano")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder below which the tiny recipe was trained, for all tests to read."""
    pytest.importorskip("trl", reason="training needs trl")
    own = tmp_path_factory.getbasetemp()
    return train_tiny((own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "tiny")


@pytest.fixture
def tiny_copy(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that folder, where this process stands."""
    monkeypatch.setenv("R2REASONER_HOME", str(tmp_path / "home"))
    copy = tmp_path / "tiny"
    shutil.copytree(tiny, copy)
    monkeypatch.chdir(copy)
    return copy
