"""Processes that write an outcome store and die in it: run as `python dying.py MODE FOLDER ...`.

Each prints, unbuffered, the key of what it has put, as soon as it has.
"""

import os
import resource
import signal
import sys
from itertools import count
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from r2reasoner.errors import ConfigError
from r2reasoner.outcomes.shards import pyarrow
from r2reasoner.outcomes.store import OutcomeStore
from recorded import answered, outcome

STEPS = ("open", "os.rename", "os.remove", "os.link", "fcntl.flock")


def say(text: str) -> None:
    os.write(1, text.encode() + b"\n")


def put(store: OutcomeStore, key: str) -> None:
    store.put(answered(key))
    say(key)


def endless(folder: Path, name: str) -> None:
    """Put answers without end, and make shards of them all the time."""
    store = OutcomeStore.open(folder)
    for number in count():
        put(store, f"{name}-{number}")
        if number % 20 == 19:
            store.compact()


def some(folder: Path, name: str, amount: str) -> None:
    """Put so many answers, some of which other processes put too, and close."""
    with OutcomeStore.open(folder) as store:
        say("open")
        sys.stdin.readline()
        for number in range(int(amount)):
            put(store, f"{name}-{number}")
            put(store, f"both-{number}")
            store.add(outcome(f"both-{number}"))
            if number % 25 == 24:
                store.compact()


def every_step(parent: Path) -> None:
    """Make store after store, each by a child that dies one step later in `compact`."""
    pyarrow().array([1])  # which imports much: once, not in every child
    for number in count():
        folder = parent / str(number)
        child = os.fork()
        if child == 0:
            _die_at(folder, number)
        if os.waitpid(child, 0)[1] == 0:
            say(str(number))
            return


def _die_at(folder: Path, step: int) -> None:
    for key in ("old-1", "old-2"):
        with OutcomeStore.open(folder) as store:
            store.put(answered(key))
    store = OutcomeStore.open(folder)
    store.put(answered("new"))
    store.add(outcome("new"))
    steps = count()

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event in STEPS and next(steps) == step:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    store.compact()
    os._exit(0)


def full(folder: Path) -> None:
    """Put answers until no more fit, then make room, put one more and die."""
    store = OutcomeStore.open(folder)
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, hard))
    try:
        for number in count():
            put(store, f"some-{number}")
    except ConfigError as error:
        say(f"error {error}")
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    put(store, "after")
    os.kill(os.getpid(), signal.SIGKILL)


def forking(folder: Path) -> None:
    """Put answers in a process that dies and, at the same time, in a fork of it."""
    store = OutcomeStore.open(folder)
    put(store, "before")
    if os.fork() == 0:
        put(store, "child")
        store.compact()
        store.close()
        os._exit(0)
    put(store, "parent")
    os.wait()
    put(store, "after")
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    mode, where, *more = sys.argv[1:]
    modes = {f.__name__: f for f in (endless, some, every_step, full, forking)}
    modes[mode](Path(where), *more)
