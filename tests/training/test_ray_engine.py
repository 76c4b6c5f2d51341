"""The Ray engine on a local Ray of two CPUs; the fake provider's books are the oracle."""

import asyncio
import gc
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from subprocess import PIPE

import pytest

import shard_samples
from calls import until
from pools import serving
from r2reasoner.errors import CallError, CallFault, ConfigError, DataError, R2Error
from r2reasoner.evaluation.spending import CapReached, SpendingLedger
from r2reasoner.mock import ChatCall, MockProvider
from r2reasoner.training.ray_engine import _sendable
from r2reasoner.training.shard_folder import read_shards
from r2reasoner.training.shards import Engine, Factory, run_shards
from r2reasoner.types import CallOutcome
from shard_samples import PRICE, STEPS, asking, job, made

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'r2reasoner[ray]'")

# What Ray 2.60 itself uses, and leaves open.
pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning",
    "ignore::ResourceWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
)
TESTS = Path(shard_samples.__file__).parent
ROWS = 60


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(TESTS), prepend=os.pathsep)
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_worker_niceness", "0")  # at its 15, other work on a machine starves them
        patch.delenv("RAY_ADDRESS", raising=False)
        if trouble := start_ray():
            pytest.skip(f"Ray itself does not start on this machine now: {trouble}")
        yield
        stop_ray()


def start_ray() -> str | None:
    """Start Ray; where it does not come up in the time it gives itself, say why."""
    try:
        ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    except Exception as error:
        trouble = str(error)
    else:
        return None
    stop_ray()
    return trouble


def stop_ray() -> None:
    ray.shutdown()
    gc.collect()  # what Ray leaves open, while its warnings are ignored


@pytest.fixture
def spending(tmp_path: Path) -> Iterator[SpendingLedger]:
    with SpendingLedger.open(tmp_path / "ledger.db") as opened:
        yield opened


def files(out: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in out.iterdir()}


@pytest.mark.usefixtures("cluster")
async def test_the_same_files_come_out_as_with_asyncio(
    tmp_path: Path, spending: SpendingLedger
) -> None:
    here, there = job(tmp_path / "here", ROWS), job(tmp_path / "there", ROWS)
    provider = MockProvider()
    with serving(provider) as url:
        await run_shards(here, asking(url), spending)
        spent = spending.spent
        manifest = await run_shards(there, asking(url), spending, engine=Engine.RAY)
    assert manifest.whole
    assert files(here.out) == files(there.out)
    assert spending.spent == 2 * spent
    await spending.flush()
    assert len(provider.books) == spending.totals().calls == 2 * ROWS * STEPS
    assert spending.totals().cost == spending.spent


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
class TestAcrossWorkers:
    async def test_the_cap_holds(self, tmp_path: Path, spending: SpendingLedger) -> None:
        what = job(tmp_path / "out", ROWS)
        provider = MockProvider(latency_s=0.01)
        with serving(provider) as url:
            factory = asking(url, tmp_path / "store")
            spending.cap = 10**9
            with pytest.raises(CapReached, match=r"the cap of \$0\.001 is reached"):
                await run_shards(what, factory, spending, engine=Engine.RAY, workers=3)
            billed = sum(PRICE.cost(entry.usage) for entry in provider.books)
            assert 10**9 * 0.7 < billed == spending.spent <= 10**9
            assert spending.totals().cost == billed
            spending.cap = None
            await run_shards(what, factory, spending, engine=Engine.RAY, workers=3)
        assert list(read_shards(what.out)) == [made(row) for row in what.rows]
        assert len(provider.books) == spending.totals().calls == ROWS * STEPS

    async def test_an_endpoints_limit_holds(self, tmp_path: Path, spending: SpendingLedger) -> None:
        provider = MockProvider(latency_s=0.02)
        with serving(provider) as url:
            factory = asking(url, concurrency=3)
            await run_shards(
                job(tmp_path / "out", ROWS), factory, spending, engine=Engine.RAY, workers=3
            )
        ends = [(entry.started_at, 1) for entry in provider.books]
        ends += [(entry.finished_at or 0.0, -1) for entry in provider.books]
        now = most = 0
        for _, change in sorted(ends):
            now += change
            most = max(now, most)
        assert most == 3

    async def test_a_killed_worker_loses_and_repays_only_what_was_in_flight(
        self, tmp_path: Path, spending: SpendingLedger
    ) -> None:
        what, in_flight, kills = job(tmp_path / "out", ROWS), 16, [20, 60, 90]
        signs = tmp_path / "signs"
        signs.mkdir()
        asked: Counter[str] = Counter()

        def answer(call: ChatCall) -> str:
            asked[call.last_user] += 1
            if asked.total() in kills:
                pids = sorted(int(file.name) for file in signs.iterdir())
                os.kill(pids[-1], signal.SIGKILL)
                (signs / str(pids[-1])).unlink()
            return call.last_user

        provider = MockProvider(answer=answer, latency_s=0.02)
        with serving(provider) as url:
            factory = asking(url, tmp_path / "store", sign=signs)
            await run_shards(what, factory, spending, engine=Engine.RAY, in_flight=in_flight)
        assert list(read_shards(what.out)) == [made(row) for row in what.rows]
        each = in_flight // 2
        assert ROWS * STEPS < asked.total() <= ROWS * STEPS + len(kills) * each
        entries = spending.entries()
        unknown = [e for e in entries if e.outcome is CallOutcome.UNKNOWN]
        assert 1 <= len(unknown) <= len(kills) * each
        assert all(e.cost == e.bound and "its worker ended" in str(e.error) for e in unknown)
        assert not [e for e in entries if e.outcome is CallOutcome.OPEN]
        billed = sum(PRICE.cost(entry.usage) for entry in provider.books)
        known = [e for e in entries if e.outcome is CallOutcome.OK]
        assert sum(e.cost or 0 for e in known) <= billed <= spending.spent
        assert spending.spent == spending.totals().cost

    async def test_an_error_comes_back_as_it_is(
        self, tmp_path: Path, spending: SpendingLedger
    ) -> None:
        what = job(tmp_path / "out", ROWS)
        provider = MockProvider(latency_s=0.05)
        with serving(provider) as url:
            failing = asking(url, fail_at="item0030")
            with pytest.raises(DataError, match="row item0030 is not for us"):
                await run_shards(what, failing, spending, engine=Engine.RAY, in_flight=8)
            assert len(provider.books) < ROWS * STEPS
            await run_shards(what, asking(url), spending, engine=Engine.RAY)
        assert list(read_shards(what.out)) == [made(row) for row in what.rows]
        assert len(provider.books) == ROWS * STEPS

    async def test_a_process_that_is_not_there_is_said(
        self, tmp_path: Path, spending: SpendingLedger
    ) -> None:
        with pytest.raises(ConfigError, match=r"no process 'no\.such:process'"):
            await run_shards(
                job(tmp_path / "out"), Factory("no.such:process"), spending, engine=Engine.RAY
            )

    async def test_cancelling_breaks_off_and_keeps_what_is_finished(
        self, tmp_path: Path, spending: SpendingLedger
    ) -> None:
        what = job(tmp_path / "out", ROWS)
        provider = MockProvider(latency_s=lambda call: 600.0 if len(provider.books) > 40 else 0.0)
        with serving(provider) as url:
            factory = asking(url, tmp_path / "store")
            run = asyncio.create_task(
                run_shards(what, factory, spending, engine=Engine.RAY, in_flight=8)
            )
            await until(lambda: len(provider.books) > 42 or run.done())
            run.cancel()
            with pytest.raises(asyncio.CancelledError):
                await run
            assert not [e for e in spending.entries() if e.outcome is CallOutcome.OPEN]
            provider.latency_s = 0.0
            paid_for = sum(entry.status == 200 for entry in provider.books)
            await run_shards(what, factory, spending, engine=Engine.RAY)
        assert list(read_shards(what.out)) == [made(row) for row in what.rows]
        assert sum(entry.status == 200 for entry in provider.books) == ROWS * STEPS
        assert paid_for < ROWS * STEPS


@pytest.mark.slow
def test_a_killed_command_is_gone_on_with(tmp_path: Path, spending: SpendingLedger) -> None:
    """Without the module's cluster: the command starts one of its own, which dies with it."""
    what, in_flight = job(tmp_path / "out", ROWS), 16
    asked: Counter[str] = Counter()
    pid = 0

    def answer(call: ChatCall) -> str:
        asked[call.last_user] += 1
        if asked.total() == 50:
            os.kill(pid, signal.SIGKILL)
        return call.last_user

    provider = MockProvider(answer=answer, latency_s=0.02)
    paths = os.pathsep.join([str(TESTS), *sys.path])
    settings = {"PYTHONPATH": paths, "RAY_ADDRESS": "local", "RAY_worker_niceness": "0"}
    environment = {**os.environ, **settings}
    with (
        serving(provider) as url,
        subprocess.Popen(
            [sys.executable, shard_samples.__file__],
            stdin=PIPE,
            stdout=PIPE,
            text=True,
            env=environment,
        ) as nursery,
    ):
        settings = {name: str(tmp_path / name) for name in ("out", "store", "db")}
        numbers = {"rows": ROWS, "in_flight": in_flight, "shard_rows": what.shard_rows}
        settings |= {"base_url": url, "engine": "ray"}
        assert nursery.stdin is not None
        assert nursery.stdout is not None
        print(json.dumps({**settings, **numbers}), file=nursery.stdin, flush=True)
        pid = int(nursery.stdout.readline())
        assert int(nursery.stdout.readline()) == -signal.SIGKILL
        asyncio.run(run_shards(what, asking(url, tmp_path / "store"), spending))
    assert list(read_shards(what.out)) == [made(row) for row in what.rows]
    assert 0 <= asked.total() - ROWS * STEPS <= in_flight
    assert spending.totals().calls < ROWS * STEPS


async def test_without_ray_it_is_said_what_to_install(
    tmp_path: Path, spending: SpendingLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"needs Ray: pip install 'r2reasoner\[ray\]'"):
        await run_shards(job(tmp_path / "out"), Factory("a:b"), spending, engine=Engine.RAY)


async def test_a_ledger_in_memory_is_refused(tmp_path: Path) -> None:
    with (
        SpendingLedger.in_memory() as ledger,
        pytest.raises(ConfigError, match="in memory cannot be shared"),
    ):
        await run_shards(job(tmp_path / "out"), Factory("a:b"), ledger, engine=Engine.RAY)


def test_an_error_that_cannot_be_sent_is_told() -> None:
    told = _sendable(CallError(CallFault.SERVER, "gone", model="small"))
    assert type(told) is R2Error
    assert str(told) == "CallError: small: gone (server_error)"


def test_a_bug_is_sent_with_where_it_is() -> None:
    empty: dict[str, int] = {}
    with pytest.raises(KeyError) as caught:
        _ = empty["query"]
    sent = _sendable(caught.value)
    assert type(sent) is KeyError
    assert "test_a_bug_is_sent_with_where_it_is" in sent.__notes__[0]
