import asyncio
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from subprocess import PIPE

import pytest

import shard_samples
from pools import serving
from r2reasoner.errors import ConfigError, DataError
from r2reasoner.evaluation.evaluate import Progress
from r2reasoner.evaluation.spending import CapReached, SpendingLedger
from r2reasoner.ledger import Ledger
from r2reasoner.mock import ChatCall, MockProvider
from r2reasoner.training.journal import Row
from r2reasoner.training.shard_folder import read_shards
from r2reasoner.training.shards import Factory, Process, run_shards
from shard_samples import STEPS, asking, job, made


@pytest.fixture
def spending(tmp_path: Path) -> Iterator[SpendingLedger]:
    with SpendingLedger.open(tmp_path / "ledger.db") as opened:
        yield opened


@asynccontextmanager
async def open_any(*, ledger: Ledger, process: Process) -> AsyncIterator[Process]:
    yield process


def calling(process: Process) -> Factory:
    return Factory("test_shards:open_any", {"process": process})


def finished(out: Path) -> set[str]:
    """The keys of the rows that stand in journals."""
    lines = [line for file in out.glob("*.jsonl") for line in file.read_text().splitlines()]
    return {json.loads(line)["row"]["item"] for line in lines}


async def test_rows_are_made_by_calls_that_stand_in_the_ledger(
    tmp_path: Path, spending: SpendingLedger
) -> None:
    what = job(tmp_path / "out")
    async with MockProvider() as provider:
        manifest = await run_shards(what, asking(provider.base_url), spending)
    assert manifest.whole
    assert list(read_shards(what.out)) == [made(row) for row in what.rows]
    assert len(provider.books) == spending.totals().calls == 20 * STEPS
    assert spending.totals().cost == spending.spent > 0


async def test_so_many_rows_are_in_flight(tmp_path: Path, spending: SpendingLedger) -> None:
    now = most = 0

    async def process(row: Row) -> Row:
        nonlocal now, most
        now += 1
        most = max(now, most)
        await asyncio.sleep(0)
        now -= 1
        return made(row)

    await run_shards(job(tmp_path / "out"), calling(process), spending, in_flight=5)
    assert most == 5


async def test_progress_counts_what_was_done_before(
    tmp_path: Path, spending: SpendingLedger
) -> None:
    heard: list[Progress] = []
    what = job(tmp_path / "out")

    async def fails_after_four(row: Row) -> Row:
        if row["item"] > "item0003":
            raise DataError("enough")
        return made(row)

    with pytest.raises(DataError, match="enough"):
        await run_shards(what, calling(fails_after_four), spending, in_flight=1)
    async with MockProvider() as provider:
        await run_shards(what, asking(provider.base_url), spending, progress=heard.append)
    assert [at.done for at in heard] == list(range(4, 21))
    assert {at.total for at in heard} == {20}
    assert heard[0].seconds_left is None
    assert heard[-1] == Progress(20, 20, spending.spent, 0.0)


async def test_a_finished_folder_asks_nobody(tmp_path: Path, spending: SpendingLedger) -> None:
    what = job(tmp_path / "out")
    async with MockProvider() as provider:
        first = await run_shards(what, asking(provider.base_url), spending)
        again = await run_shards(what, Factory("no.such:process"), spending)
    assert again == first
    assert len(provider.books) == 20 * STEPS


async def test_an_error_lets_what_is_in_flight_end_and_begins_no_more(
    tmp_path: Path, spending: SpendingLedger
) -> None:
    begun: list[str] = []
    failed = asyncio.Event()

    async def process(row: Row) -> Row:
        begun.append(row["item"])
        if row["item"] == "item0002":
            failed.set()
            raise ValueError("a bug")
        await failed.wait()
        await asyncio.sleep(0)
        return made(row)

    what = job(tmp_path / "out")
    with pytest.raises(ValueError, match="a bug"):
        await run_shards(what, calling(process), spending, in_flight=4)
    assert begun == [f"item{n:04}" for n in range(4)]
    assert finished(what.out) == {"item0000", "item0001", "item0003"}


async def test_a_row_of_another_form_is_an_error(tmp_path: Path, spending: SpendingLedger) -> None:
    async def process(row: Row) -> Row:
        return {**made(row), "cost": "much"}

    with pytest.raises(DataError, match="row item0000: expected cost to be of kind integer"):
        await run_shards(job(tmp_path / "out"), calling(process), spending)


async def test_cancelling_keeps_what_is_finished(tmp_path: Path, spending: SpendingLedger) -> None:
    what = job(tmp_path / "out")
    third = asyncio.Event()

    async def process(row: Row) -> Row:
        if row["item"] == "item0002":
            third.set()
            await asyncio.Event().wait()
        return made(row)

    run = asyncio.create_task(run_shards(what, calling(process), spending, in_flight=1))
    await third.wait()
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert finished(what.out) == {"item0000", "item0001"}


async def test_the_cap_ends_a_run_that_a_higher_cap_goes_on_with(
    tmp_path: Path, spending: SpendingLedger
) -> None:
    what = job(tmp_path / "out")
    async with MockProvider() as provider:
        factory = asking(provider.base_url, tmp_path / "store")
        spending.cap = 500 * 10**6
        with pytest.raises(CapReached):
            await run_shards(what, factory, spending, in_flight=3)
        assert spending.spent <= spending.cap
        spending.cap = None
        await run_shards(what, factory, spending)
    assert list(read_shards(what.out)) == [made(row) for row in what.rows]
    assert len(provider.books) == 20 * STEPS


@pytest.mark.parametrize("path", ["no.such:process", "shard_samples:nothing", "shard_samples", ""])
async def test_a_process_that_is_not_there_is_said(
    tmp_path: Path, spending: SpendingLedger, path: str
) -> None:
    with pytest.raises(ConfigError, match=rf"no process '{path}', expected package.module:fun"):
        await run_shards(job(tmp_path / "out"), Factory(path), spending)


@pytest.mark.parametrize(("in_flight", "workers"), [(0, 1), (1, 0)])
async def test_nothing_in_flight_is_refused(
    tmp_path: Path, spending: SpendingLedger, in_flight: int, workers: int
) -> None:
    what = job(tmp_path / "out")
    with pytest.raises(ConfigError, match=f"rows in flight, got {in_flight}, and workers, got"):
        await run_shards(what, Factory("a:b"), spending, in_flight=in_flight, workers=workers)


# --- kill -9 ------------------------------------------------------------------------------------

IN_FLIGHT = 4
ROWS = 60
SHARD_ROWS = 2


class Killed:
    """A job that is run in processes of its own, which are killed at requests drawn by a seed."""

    def __init__(self, folder: Path, seed: int = 0, *, keeps_answers: bool = True) -> None:
        self.folder = folder
        self.store = str(folder / "store") if keeps_answers else None
        self.provider = MockProvider(answer=self._answer)
        self.asked: Counter[str] = Counter()
        self.kills = 0
        self._rng = Random(seed)
        self._pid = 0
        self._until_kill = 0

    @property
    def files(self) -> dict[str, bytes]:
        return {file.name: file.read_bytes() for file in (self.folder / "out").iterdir()}

    def run_to_the_end(self, *, kills: int) -> None:
        """Run the job, killed so many times."""
        command = [sys.executable, shard_samples.__file__]
        with (
            serving(self.provider) as base_url,
            subprocess.Popen(command, stdin=PIPE, stdout=PIPE, text=True) as nursery,
        ):
            for left in range(kills, -1, -1):
                self._run(nursery, base_url, kill_at=self._rng.randint(1, 12) if left else 0)

    def _run(self, nursery: "subprocess.Popen[str]", base_url: str, *, kill_at: int) -> None:
        """Run until it ends or is killed, at the request of that number (0: not)."""
        settings = {"out": str(self.folder / "out"), "db": str(self.folder / "db")}
        settings |= {"base_url": base_url}
        numbers = {"rows": ROWS, "in_flight": IN_FLIGHT, "shard_rows": SHARD_ROWS}
        assert nursery.stdin is not None
        assert nursery.stdout is not None
        self._until_kill = kill_at
        print(json.dumps({**settings, **numbers, "store": self.store}), file=nursery.stdin)
        nursery.stdin.flush()
        self._pid = int(nursery.stdout.readline())
        end = int(nursery.stdout.readline())
        self._pid = 0
        assert end in (0, -signal.SIGKILL)
        self.kills += end != 0

    def _answer(self, call: ChatCall) -> str:
        """Echo; at the chosen request, kill who asks, now or while it takes in the answer."""
        self.asked[call.last_user] += 1
        self._until_kill -= 1
        if self._until_kill == 0:
            delay = self._rng.choice((0.0, 0.002, 0.005, 0.02))
            asyncio.get_running_loop().call_later(delay, self._kill, self._pid)
        return call.last_user

    def _kill(self, pid: int) -> None:
        if pid and self._pid == pid:
            os.kill(pid, signal.SIGKILL)


def kill_and_go_on(folder: Path, kills: int, seed: int, *, keeps_answers: bool) -> None:
    """Kill a job again and again till it is done; nothing may be lost, or repaid but in flight."""
    whole = Killed(folder / "whole")
    whole.run_to_the_end(kills=0)
    run = Killed(folder / "killed", seed, keeps_answers=keeps_answers)
    run.run_to_the_end(kills=kills)
    assert run.kills > kills // 2
    assert run.files == whole.files
    assert list(read_shards(run.folder / "out")) == [made(row) for row in job(Path(), ROWS).rows]
    assert run.asked.keys() == whole.asked.keys()
    assert whole.asked.total() == ROWS * STEPS
    calls_in_flight = IN_FLIGHT if keeps_answers else IN_FLIGHT * STEPS
    assert run.asked.total() - ROWS * STEPS <= run.kills * calls_in_flight
    with Ledger.open(run.folder / "db") as ledger:
        entries = ledger.entries()
    assert 0 <= len(entries) - len(run.provider.books) <= run.kills * IN_FLIGHT
    billed = sum(shard_samples.PRICE.cost(entry.usage) for entry in run.provider.books)
    assert sum(entry.cost or 0 for entry in entries) >= billed


@pytest.mark.parametrize("keeps_answers", [True, False])
def test_a_job_killed_again_and_again_gives_the_same_files_and_repays_what_was_in_flight(
    tmp_path: Path, keeps_answers: bool
) -> None:
    """Without a store of answers, a row in flight pays for its first calls again too."""
    kill_and_go_on(tmp_path, 5, seed=1, keeps_answers=keeps_answers)


@pytest.mark.slow
@pytest.mark.parametrize("keeps_answers", [True, False])
@pytest.mark.parametrize("seed", range(100, 105))
def test_a_hundred_kills(tmp_path: Path, seed: int, keeps_answers: bool) -> None:
    kill_and_go_on(tmp_path, 10, seed, keeps_answers=keeps_answers)
