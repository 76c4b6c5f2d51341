"""CPython in a bubblewrap jail: its own name spaces, another user, hard limits by prlimit.

The jail sees the interpreter, its libraries and the text it runs, all read-only, and has no /proc,
no /dev, no network and no writable file. Root starts it as root and drops to a user id of that
run's own, so that nothing else runs under it; others (and a root without CAP_SYS_ADMIN) use a user
name space.
"""

import itertools
import math
import os
import shutil
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import ClassVar, Final

from r2reasoner.errors import ConfigError
from r2reasoner.sandbox import process, seccomp
from r2reasoner.sandbox.base import MIB, Ran, Sandbox, patience

SOURCE: Final = "/source.py"
PACKAGES: Final = "/packages"
FIRST_USER: Final = 1_600_000_000
USERS: Final = 100_000_000
NOBODY: Final = 65534
LIBRARIES: Final = ("/lib", "/lib64", "/lib32", "/usr/lib", "/usr/lib64", "/nix/store")
# What isolation means, tried from the inside.
PROBE: Final = """\
import os, socket
assert os.getuid() != 0 and not os.path.exists("/etc") and not os.path.exists("/proc")
for step in (lambda: os.fork(), lambda: open("/made", "w"), lambda: os.setuid(0)):
    try:
        step()
    except OSError:
        continue
    raise SystemExit("not isolated")
try:
    with socket.socket() as line:
        line.connect(("127.0.0.1", 9))
    raise SystemExit("not isolated")
except OSError:
    pass
print("isolated")
"""


class Way(StrEnum):
    """How the jail gets its privileges."""

    ROOT = "root"
    ROOT_USERNS = "root without CAP_SYS_ADMIN"
    USERNS = "user name space"


@dataclass(frozen=True, slots=True)
class Limits:
    """What a jailed process may use. `cpu_seconds` None: it is ended from outside."""

    memory_bytes: int
    cpu_seconds: float | None = None
    processes: int = 1


@dataclass(frozen=True, slots=True)
class Package:
    """A file or folder that a jailed service may import, by its name there."""

    name: str
    path: Path


@dataclass(frozen=True, slots=True)
class Jail:
    """The tools of this machine, and the command lines made of them."""

    bwrap: str
    setpriv: str
    prlimit: str
    way: Way

    @classmethod
    def ways(cls) -> Iterator["Jail"]:
        """Yield what may work here, the best first. Raises ConfigError for missing tools."""
        found = {tool: shutil.which(tool) for tool in ("bwrap", "setpriv", "prlimit")}
        if missing := [tool for tool, path in found.items() if path is None]:
            raise ConfigError(f"{', '.join(missing)} not found")
        bwrap, setpriv, prlimit = map(str, found.values())
        root = sys.platform == "linux" and os.geteuid() == 0
        for way in (Way.ROOT, Way.ROOT_USERNS) if root else (Way.USERNS,):
            yield cls(bwrap, setpriv, prlimit, way)

    @contextmanager
    def command(
        self, source: str, limits: Limits, packages: Sequence[Package] = ()
    ) -> Iterator[tuple[list[str], tuple[int, ...]]]:
        """Yield the command that runs Python text in the jail, and the descriptors it needs."""
        user = str(next(_USER_IDS))
        change = [self.setpriv, "--reuid", user, "--regid", user, "--clear-groups", "--"]
        with ExitStack() as stack:
            text = stack.enter_context(_held(source.encode("utf-8", "surrogatepass")))
            fds = [text]
            argv = [] if self.way is not Way.ROOT_USERNS else change
            argv = [*argv, self.bwrap, *self._name_spaces(), *self._view(packages)]
            argv += ["--perms", "0444", "--ro-bind-data", str(text), SOURCE]
            if (rules := seccomp.program()) is not None:
                fds.append(stack.enter_context(_held(rules)))
                argv += ["--seccomp", str(fds[-1])]
            argv += ["--remount-ro", "/", "--chdir", "/", "--"]
            argv += change if self.way is Way.ROOT else []
            argv += [self.prlimit, *self._limits(limits), "--", *_python(), SOURCE]
            yield argv, tuple(fds)

    def _name_spaces(self) -> list[str]:
        always = ["--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts"]
        always += ["--unshare-cgroup-try", "--die-with-parent", "--new-session", "--clearenv"]
        always += ["--hostname", "sandbox", "--cap-drop", "ALL"]
        if self.way is Way.ROOT:
            return [*always, "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
        return ["--unshare-user", "--uid", str(NOBODY), "--gid", str(NOBODY), *always]

    def _view(self, packages: Sequence[Package]) -> list[str]:
        files = [self.prlimit, self.setpriv, os.path.realpath(sys.executable)]
        binds = [(path, path) for path in [*files, *_standard_library()]]
        binds += [(str(p.path), f"{PACKAGES}/{p.name}") for p in packages]
        links = [path for path in LIBRARIES if os.path.islink(path)]
        view = [part for link in links for part in ("--symlink", os.readlink(link), link)]
        binds = [(p, p) for p in LIBRARIES if os.path.isdir(p) and p not in links] + binds
        # Folders that bubblewrap makes on the way are closed to the user that the jail drops to.
        for folder in _parents([target for _, target in binds]):
            view += ["--dir", folder]
        for path, target in binds:
            view += ["--ro-bind", path, target]
        if os.path.isdir(others := f"{sysconfig.get_path('stdlib')}/site-packages"):
            view += ["--tmpfs", others, "--remount-ro", others]
        return view

    def _limits(self, limits: Limits) -> list[str]:
        # A user name space counts bubblewrap's own process there too.
        processes = limits.processes + (self.way is not Way.ROOT)
        made = [f"--nproc={processes}", f"--as={limits.memory_bytes}"]
        made += ["--fsize=0", "--core=0", "--nofile=32", "--msgqueue=0", "--memlock=0"]
        if limits.cpu_seconds is not None:
            made.append(f"--cpu={max(1, math.ceil(limits.cpu_seconds))}")
        return made


class Bubblewrap(Sandbox):
    """Python text in a new jail for every run."""

    name: ClassVar[str] = "bubblewrap"

    def __init__(self, jail: Jail) -> None:
        self.jail = jail

    @classmethod
    def probe(cls) -> "Bubblewrap":
        """Return the first way to jail that works, by running one. Raises ConfigError."""
        reasons = []
        for jail in Jail.ways():
            made = cls(jail)
            ran = made.run(PROBE, seconds=5)
            if ran.stdout == "isolated\n":
                return made
            reasons.append(f"{jail.way}: {(ran.stderr or ran.stdout).strip()[-200:]}")
        raise ConfigError("; ".join(reasons))

    def run(
        self,
        source: str,
        *,
        stdin: str = "",
        seconds: float,
        wall_seconds: float | None = None,
        memory_bytes: int = 512 * MIB,
        output_bytes: int = MIB,
    ) -> Ran:
        """Run Python text in a jail of its own; see `Sandbox.run`."""
        with self.jail.command(source, Limits(memory_bytes, seconds)) as (argv, fds):
            try:
                return process.run(
                    argv,
                    stdin=stdin.encode("utf-8", "surrogatepass"),
                    fds=fds,
                    wall_seconds=wall_seconds or patience(seconds),
                    output_bytes=output_bytes,
                )
            except OSError as error:
                raise ConfigError(f"{argv[0]} cannot be started: {error.strerror}") from error


_USER_IDS: Final = itertools.cycle(
    range(FIRST_USER + os.getpid() % 1_000 * 100_000, FIRST_USER + USERS)
)


def _python() -> list[str]:
    python = os.path.realpath(sys.executable)
    return [python, "-I", "-S", "-B", "-X", "utf8", "-X", "int_max_str_digits=0"]


def _standard_library() -> list[str]:
    """Return what the interpreter needs outside the system's own library folders."""
    base = {"base": sys.base_prefix, "platbase": sys.base_exec_prefix}
    paths = {sysconfig.get_path(kind, vars=base) for kind in ("stdlib", "platstdlib")}
    paths |= {str(path) for path in (Path(sys.base_prefix) / "lib").glob("libpython*")}
    return sorted(p for p in paths if not any(Path(p).is_relative_to(lib) for lib in LIBRARIES))


def _parents(paths: Sequence[str]) -> list[str]:
    made = {str(parent) for path in paths for parent in Path(path).parents}
    return sorted(made - {"/"} - {p for p in LIBRARIES if os.path.islink(p)})


@contextmanager
def _held(data: bytes) -> Iterator[int]:
    """Yield a descriptor of a file in memory that holds the data."""
    fd = os.memfd_create("sandbox")
    try:
        with open(fd, "wb", closefd=False) as stream:
            stream.write(data)
        os.lseek(fd, 0, os.SEEK_SET)
        yield fd
    finally:
        os.close(fd)
