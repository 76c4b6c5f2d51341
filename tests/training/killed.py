"""Processes that are killed (-9) while they write, run as a script: `killed.py SCENARIO FOLDER`.

It prints how many were killed, and fails where what one left behind is not as it should be. A
fork needs a process without threads, so tests start this one.
"""

import os
import random
import signal
import sys
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

from r2reasoner.training.checkpoint import Info, latest, save
from r2reasoner.training.run_folder import RunFolder

FILE_EVENTS = {
    *("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.chmod"),
    *("os.truncate", "os.listdir", "os.scandir", "shutil.rmtree"),
}
LEFT = {"step-00001000", "latest.json"}


def forked(act: Callable[[], None], watch: Callable[[int], None] = lambda pid: None) -> bool:
    """Run a function in a child process; tell whether it came to its end."""
    pid = os.fork()
    if pid == 0:
        try:
            act()
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            os._exit(1)
        os._exit(0)
    watch(pid)
    _, status = os.waitpid(pid, 0)
    killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    assert killed or status == 0, f"a child failed: {status}"
    return not killed


def kill_before(number: int) -> None:
    """Kill this process before its file operation of that number (from 1)."""
    seen = 0

    def hook(event: str, _: object) -> None:
        nonlocal seen
        if event in FILE_EVENTS:
            seen += 1
            if seen == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def everywhere(
    top: Path,
    begin: Callable[[Path], None],
    act: Callable[[Path], None],
    check: Callable[[Path, bool], None],
) -> int:
    """Kill `act` before each of its file operations in turn, in a fresh folder each time."""
    for number in count(1):
        folder = top / str(number)
        folder.mkdir()
        begin(folder)

        def dying(folder: Path = folder, number: int = number) -> None:
            kill_before(number)
            act(folder)

        finished = forked(dying)
        check(folder, finished)
        if finished:
            return number - 1
    raise AssertionError


def weights(step: int) -> bytes:
    return random.Random(step).randbytes(60_000)


def save_step(folder: Path, step: int) -> None:
    def write(to: Path) -> None:
        (to / "optimizer").mkdir()
        (to / "optimizer" / "state.bin").write_bytes(weights(step)[::-1])
        (to / "model.safetensors").write_bytes(weights(step))

    save(folder, write, Info("trainer", "sft", step))


def standing_step(folder: Path) -> int:
    """Return the step of the newest checkpoint, after a look at its content."""
    found = latest(folder, kind="trainer", stage="sft")
    assert found is not None
    assert (found.path / "model.safetensors").read_bytes() == weights(found.info.step)
    return found.info.step


def goes_on(folder: Path) -> None:
    """Save once more, and see that nothing else is left."""
    save_step(folder, 1000)
    assert standing_step(folder) == 1000
    assert set(os.listdir(folder)) == LEFT, os.listdir(folder)


def while_saving_everywhere(top: Path) -> int:
    def check(folder: Path, finished: bool) -> None:
        step = standing_step(folder)
        assert step == 2 if finished else step in (1, 2)
        goes_on(folder)

    return everywhere(top, lambda f: save_step(f, 1), lambda f: save_step(f, 2), check)


def while_saving_at_random(top: Path) -> int:
    killed = 0
    for number in range(10):
        folder, done = top / str(number), top / f"{number}.done"

        def act(folder: Path = folder, done: Path = done) -> None:
            for step in range(1, 1000):
                save_step(folder, step)
                done.write_text(str(step))

        def watch(pid: int, folder: Path = folder, number: int = number) -> None:
            while not folder.exists() or not any(folder.glob("step-*")):
                time.sleep(0.001)
            time.sleep(random.Random(number).uniform(0, 0.06))
            os.kill(pid, signal.SIGKILL)

        killed += not forked(act, watch)
        # The file that tells may itself be torn; what it says was saved stands.
        said = int((done.read_text() if done.exists() else "") or 1)
        assert standing_step(folder) >= said
        goes_on(folder)
    return killed


def open_run(folder: Path) -> RunFolder:
    data = folder.with_suffix(".data")
    data.write_text("items")
    return RunFolder.open(folder / "run", "[sft]\nlr = 0.1\n", {"torch": 1}, {"items": data})


def train(folder: Path) -> None:
    with open_run(folder) as run:
        weights_file = run.path / "weights"
        weights_file.write_bytes(b"1")
        for step in (1, 2):
            run.metrics("sft", step, loss=1 / step)
        run.rollouts("sft", 2, [{"query": "1 + 1", "answer": "2"}])
        run.stage_done("sft", {"policy": weights_file})
        run.summary()


def while_training(top: Path) -> int:
    def check(folder: Path, finished: bool) -> None:
        with open_run(folder) as run:
            assert run.is_done("sft") or not finished
            assert len(run.rows()) <= 2
        train(folder)
        with open_run(folder) as run:
            assert [row["loss"] for row in run.rows()] == [1.0, 0.5]
            assert run.is_done("sft")
            hidden = [p for p in run.path.rglob(".*") if p.name != ".lock"]
            assert not hidden, hidden

    return everywhere(top, lambda folder: None, train, check)


SCENARIOS = {
    f.__name__: f for f in (while_saving_everywhere, while_saving_at_random, while_training)
}

if __name__ == "__main__":
    print(SCENARIOS[sys.argv[1]](Path(sys.argv[2])))
