"""A child process under limits of time and output, with its whole process group ended after it."""

import contextlib
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Sequence
from typing import IO, Final

from r2reasoner.sandbox.base import Ran

CHUNK: Final = 65536
KILLED: Final = frozenset({-signal.SIGKILL, 128 + signal.SIGKILL, 128 + signal.SIGXCPU})


def spawn(
    argv: Sequence[str], *, stderr: int = subprocess.PIPE, fds: Sequence[int] = ()
) -> subprocess.Popen[bytes]:
    """Start a command with an empty environment, in a session of its own. Raises OSError."""
    return subprocess.Popen(
        argv,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stderr,
        bufsize=0,
        env={},
        cwd="/",
        pass_fds=tuple(fds),
        start_new_session=True,
    )


def end(child: subprocess.Popen[bytes]) -> None:
    """Kill a child's process group, close its pipes and wait for it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    for stream in (child.stdin, child.stdout, child.stderr):
        if stream is not None:
            stream.close()
    child.wait()


def run(
    argv: Sequence[str],
    *,
    stdin: bytes,
    fds: Sequence[int],
    wall_seconds: float,
    output_bytes: int,
) -> Ran:
    """Run a command to its end, or until its time is over or it prints too much."""
    child = spawn(argv, fds=fds)
    assert child.stdin is not None
    assert child.stdout is not None
    assert child.stderr is not None
    out, err = bytearray(), bytearray()
    try:
        sinks = {child.stdout: out, child.stderr: err}
        deadline = time.monotonic() + wall_seconds
        late = not _exchange(child.stdin, stdin, sinks, deadline, output_bytes)
        full = max(len(out), len(err)) > output_bytes
        # A child that has closed its output may live on: it has what is left of its time.
        code = None if late or full else _code(child, deadline - time.monotonic())
        late = late or (not full and code in (None, *KILLED))
    finally:
        end(child)
    code = child.returncode if code is None else code
    return Ran(_text(out, output_bytes), _text(err, output_bytes), late, code)


def _exchange(
    inlet: IO[bytes],
    data: bytes,
    sinks: dict[IO[bytes], bytearray],
    deadline: float,
    limit: int,
) -> bool:
    """Feed and drain a child until its output ends or is too long; False when time is over."""
    left = memoryview(data)
    os.set_blocking(inlet.fileno(), False)
    with selectors.DefaultSelector() as ready:
        for stream in sinks:
            ready.register(stream, selectors.EVENT_READ)
        ready.register(inlet, selectors.EVENT_WRITE)
        while any(stream in (key.fileobj for key in ready.get_map().values()) for stream in sinks):
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                return False
            for key, _ in ready.select(remaining):
                if key.fileobj is inlet:
                    left = _feed(inlet, left)
                    if not left:
                        ready.unregister(inlet)
                        inlet.close()
                    continue
                stream = next(s for s in sinks if s is key.fileobj)
                chunk = os.read(stream.fileno(), CHUNK)
                sinks[stream] += chunk
                if len(sinks[stream]) > limit:
                    return True
                if not chunk:
                    ready.unregister(stream)
    return True


def _feed(inlet: IO[bytes], left: memoryview) -> memoryview:
    try:
        return left[os.write(inlet.fileno(), left[:CHUNK]) :] if left else left
    except BrokenPipeError:
        return left[:0]


def _code(child: subprocess.Popen[bytes], grace: float) -> int | None:
    """Return the exit code, or None for one that closed its output and lives on."""
    try:
        return child.wait(max(0.01, grace))
    except subprocess.TimeoutExpired:
        return None


def _text(data: bytearray, limit: int) -> str:
    return bytes(data[:limit]).decode("utf-8", "replace")
