"""A PostgreSQL of the tests' own: made in a temporary folder, on a Unix socket, thrown away.

It ends with the process that started it, however that ends: the shell between waits for the end of
its standard input. initdb refuses root, so root's server runs as another user.
"""

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any, Final

import psycopg
import pytest

PATIENCE_S: Final = 60.0
RUN: Final = '"$@" & read -r how; kill -"${how:-INT}" $!; wait $!'
SETTINGS: Final = {
    "listen_addresses": "",
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "16MB",
    "deadlock_timeout": "50ms",
}
ACCESS: Final = "local all postgres trust\nlocal all all scram-sha-256\n"
"""The superuser comes in without a password, others do not."""


class Cluster:
    """A server that runs. Its databases are for one test each."""

    def __init__(self, programs: Path, folder: Path, user: str | None) -> None:
        self._programs = programs
        self._folder = folder
        self._as = {} if user is None else {"user": user, "extra_groups": []}
        self._numbers = count(1)
        self._shell: subprocess.Popen[str] | None = None

    def url(self, name: str, user: str = "postgres") -> str:
        """Return where a database is, for --db."""
        return f"postgresql://{user}@/{name}?host={self._folder}"

    def make(self) -> None:
        """Make its folder and start it."""
        data = str(self._folder / "data")
        auth = ("--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C.UTF-8")
        self._run("initdb", "--pgdata", data, "--no-sync", "--no-instructions", *auth)
        (self._folder / "data" / "pg_hba.conf").write_text(ACCESS)
        self.start()

    def start(self) -> None:
        """Start it and return when it can be used."""
        settings = [f"--{name}={value}" for name, value in SETTINGS.items()]
        where = ["-D", str(self._folder / "data"), "-k", str(self._folder)]
        with (self._folder / "log").open("a") as log:
            self._shell = subprocess.Popen(
                ["sh", "-c", RUN, "sh", str(self._programs / "postgres"), *where, *settings],
                cwd=self._folder,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                text=True,
                **self._as,  # type: ignore[call-overload]
            )
        until = time.monotonic() + PATIENCE_S
        while True:
            try:
                self.sql("postgres", "SELECT 1")
            except psycopg.OperationalError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.02)
            else:
                return

    def stop(self, *, at_once: bool = False) -> None:
        """End it; `at_once`: as if it had crashed."""
        assert self._shell is not None
        self._shell.communicate("QUIT\n" if at_once else "", timeout=PATIENCE_S)
        self._shell = None

    @contextmanager
    def schema(self) -> Iterator[str]:
        """Make what is as good as a database for most tests, and much quicker; yield its URL."""
        name = f"s{next(self._numbers)}"
        self.sql("postgres", f"CREATE SCHEMA {name}")
        try:
            yield f"{self.url('postgres')}&options=-csearch_path%3D{name}"
        finally:
            self.sql("postgres", f"DROP SCHEMA {name} CASCADE")

    @contextmanager
    def database(self, **more: str) -> Iterator[str]:
        """Make a database and yield its URL."""
        name = f"t{next(self._numbers)}"
        said = " ".join(f"{word} {value}" for word, value in more.items())
        self.sql("postgres", f"CREATE DATABASE {name} {said}")
        try:
            yield self.url(name)
        finally:
            self.sql("postgres", f"DROP DATABASE {name} WITH (FORCE)")

    def sql(self, name: str, *statements: str) -> list[Any]:
        """Run statements in a database; return the rows of the last one."""
        return run_sql(self.url(name), *statements)

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._programs / program), *arguments]
        done = subprocess.run(
            command,
            cwd=self._folder,
            capture_output=True,
            text=True,
            check=False,
            **self._as,  # type: ignore[call-overload]
        )
        assert done.returncode == 0, done.stderr


def run_sql(url: str, *statements: str) -> list[Any]:
    """Run statements in the database of a URL; return the rows of the last one."""
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


@contextmanager
def cluster() -> Iterator[Cluster]:
    """Start a PostgreSQL for a block; skip the test where none is installed."""
    programs = _programs()
    if programs is None:
        pytest.skip("no PostgreSQL is installed here (on Debian: apt-get install postgresql)")
    user = _user() if os.geteuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="r2pg-"))  # short: a socket's path has 107 characters
    if user is not None:
        shutil.chown(folder, user)
    made = Cluster(programs, folder, user)
    try:
        made.make()
        try:
            yield made
        finally:
            made.stop()
    finally:
        shutil.rmtree(folder)


def _programs() -> Path | None:
    found = shutil.which("initdb")
    if found is not None:
        return Path(found).resolve().parent
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=_version)
    return versions[-1].parent if versions else None


def _version(initdb: Path) -> list[int]:
    return [int(part) for part in initdb.parts[-3].split(".") if part.isdigit()]


def _user() -> str:
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    pytest.skip("PostgreSQL does not run as root, and there is no user nobody here")
