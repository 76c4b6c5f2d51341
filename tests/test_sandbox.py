"""The sandbox: what runs in it, what it stops, and that nothing is left of it.

Every payload prints ESCAPED where it reaches what it should not; outside the sandbox the same
payloads do reach it, which `test_the_payloads_escape_without_a_sandbox` shows.
"""

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from r2reasoner.errors import ConfigError
from r2reasoner.sandbox import MIB, Worker
from r2reasoner.sandbox import bubblewrap as jails
from r2reasoner.sandbox.bubblewrap import Bubblewrap, Way
from r2reasoner.sandbox.monty import MontySandbox

SOURCE = Path(__file__).parents[1] / "src"

HARMLESS = {
    "read a file": "open('/etc/hostname').read()",
    "list the root": "assert 'etc' in os.listdir('/')",
    "list processes": "assert os.listdir('/proc')",
    "see the environment": "assert 'PATH' in os.environ",
    "write a file": "tempfile.TemporaryFile().write(b'x')",
    "fork": "assert os.fork() or os._exit(0)",
    "start a program": "subprocess.run(['/bin/true'], check=True)",
    "start a shell": "assert os.system('true') == 0",
    "a thread": "threading.Thread(target=print).start()",
    "a socket": "socket.socket()",
    "a unix socket": "socket.socket(socket.AF_UNIX)",
    "a server": "socket.create_server(('127.0.0.1', 0))",
    "shared memory": "assert os.memfd_create('x') >= 0",
    "System V memory": "assert libc.shmget(0, 4096, 0o1600) != -1",
    "a big file limit": "assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] != 0",
}
HOSTILE = {
    "read passwords": "open('/etc/passwd').read()",
    "read shadow": "open('/etc/shadow').read()",
    "read our package": f"open({str(SOURCE / 'r2reasoner/__init__.py')!r}).read()",
    "read a home": "assert [n for n in os.listdir(os.path.expanduser('~root')) if n != '.pyenv']",
    "read the work tree": f"os.listdir({str(SOURCE.parent)!r})",
    "read memory": "open('/proc/self/mem', 'rb')",
    "read through a link": "open('/proc/1/root/etc/passwd').read()",
    "read through /dev/fd": "os.listdir('/dev/fd')",
    "read a device": "open('/dev/kmsg')",
    "read a disk": "open('/dev/vda', 'rb')",
    "read the kernel": "open('/sys/kernel/notes', 'rb')",
    "read a container's socket": "open('/run/docker.sock')",
    "read a temporary folder": "os.listdir('/tmp')",
    "write the root": "open('/made', 'w')",
    "write the source": "open('/source.py', 'a')",
    "write the interpreter": "open(sys.executable, 'ab')",
    "write the library": "open(os.__file__, 'a')",
    "write its cache": "os.mkdir(os.path.dirname(os.__file__) + '/made')",
    "remove the library": "os.remove(os.__file__)",
    "chmod": "os.chmod('/', 0o777)",
    "link": "os.link('/source.py', '/copy.py')",
    "symlink": "os.symlink('/', '/link')",
    "mkdir": "os.mkdir('/made')",
    "mknod": "os.mknod('/device', 0o660 | 0o20000, 0x101)",
    "become root": "os.setuid(0)",
    "become the group of root": "os.setgid(0)",
    "become a group": "os.setgroups([0])",
    "be root": "assert os.getuid() == 0",
    "kill init": "os.kill(1, 9)",
    "kill all": "os.kill(-1, 0)",
    "trace init": "assert libc.ptrace(16, 1, 0, 0) == 0",
    "trace itself": "assert libc.ptrace(0, 0, 0, 0) == 0",
    "mount": "assert libc.mount(b'none', b'/usr', b'tmpfs', 0, None) == 0",
    "remount": "assert libc.mount(b'', b'/', b'', 32 | 4096, None) == 0",
    "unmount": "assert libc.umount2(b'/usr/lib', 2) == 0",
    "chroot": "os.chroot('/usr')",
    "a new user name space": "assert libc.unshare(0x10000000) == 0",
    "a new mount name space": "assert libc.unshare(0x20000) == 0",
    "another's name space": "assert libc.setns(0, 0) == 0",
    "a raw clone": "assert libc.syscall(56, 0x10000000 | 17, 0, 0, 0, 0) >= 0",
    "a raw clone3": "assert libc.syscall(435, bytes(88), 88) >= 0",
    "a network connection": "socket.create_connection(('127.0.0.1', 22), 1)",
    "an outer address": "socket.create_connection(('1.1.1.1', 53), 1)",
    "a name": "assert socket.getaddrinfo('example.com', 80)",
    "a vsock to the host": "socket.socket(socket.AF_VSOCK)",
    "a netlink socket": "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
    "a packet socket": "socket.socket(socket.AF_PACKET, socket.SOCK_RAW)",
    "a bpf program": "assert libc.syscall(321, 0, 0, 0) == 0 or ctypes.get_errno() != 1",
    "an io_uring": "assert libc.syscall(425, 8, bytes(120)) >= 0",
    "a key": "assert libc.syscall(250, 0, -3, 1) >= 0",
    "a performance counter": "assert libc.syscall(298, bytes(128), 0, -1, -1, 0) >= 0",
    "another process' memory": "assert libc.syscall(310, 1, 0, 0, 0, 0, 0) == 0",
    "a user fault": "assert libc.syscall(323, 0) >= 0",
    "raise its limits": "resource.setrlimit(resource.RLIMIT_NPROC, (100, 100))",
    "raise its memory": "resource.setrlimit(resource.RLIMIT_AS, (-1, -1))",
    "raise its time": "resource.setrlimit(resource.RLIMIT_CPU, (-1, -1))",
    "raise its priority": "os.setpriority(os.PRIO_PROCESS, 0, -20)",
    "set the clock": "time.clock_settime(time.CLOCK_REALTIME, time.time())",
    "set the host name": "socket.sethostname('x')",
    "reboot": "assert libc.reboot(0) == 0",
    "a gigabyte": "x = bytes(2**30)",
    "another program": "os.execv('/usr/bin/env', ['env'])",
    "a setuid program": "os.execv('/usr/bin/su', ['su'])",
    "keep a descriptor": "assert [f for f in range(3, 32) if _open(f)]",
}
PREAMBLE = """
import ctypes, os, resource, socket, subprocess, sys, tempfile, threading, time
libc = ctypes.CDLL(None, use_errno=True)
def _open(number):
    try:
        os.fstat(number)
    except OSError:
        return False
    return True
"""


def attempt(payload: str) -> str:
    return (
        f"{PREAMBLE}\ntry:\n{textwrap.indent(payload, '    ')}\n    print('ESCAPED')\n"
        "except BaseException as error:\n    print('stopped', type(error).__name__)\n"
    )


@pytest.fixture(scope="module")
def jail() -> Bubblewrap:
    try:
        return Bubblewrap.probe()
    except ConfigError as error:
        pytest.skip(f"no bubblewrap here: {error}")


@pytest.fixture(scope="module")
def monty() -> MontySandbox:
    pytest.importorskip("pydantic_monty")
    return MontySandbox.probe()


def left_over() -> dict[str, str]:
    """Return the processes that run as users that this process gave to its jails, by number."""
    mine = jails.FIRST_USER + os.getpid() % 1_000 * 100_000
    found = {}
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and mine <= entry.stat().st_uid < mine + 100_000:
                found[entry.name] = (entry / "cmdline").read_text()
        except OSError:
            continue
    return found


class TestBubblewrap:
    def test_runs_text(self, jail: Bubblewrap) -> None:
        ran = jail.run("import sys\nprint(sys.stdin.read()[::-1])", stdin="añb", seconds=5)
        assert ran == ("bña\n", "", False, 0)

    def test_long_text_and_long_input(self, jail: Bubblewrap) -> None:
        source = f"import sys\nx = {'a' * 300_000!r}\nprint(len(x) + len(sys.stdin.read()))"
        assert jail.run(source, stdin="b" * 300_000, seconds=5).stdout == "600000\n"

    def test_input_that_nobody_reads(self, jail: Bubblewrap) -> None:
        assert jail.run("print(1)", stdin="b" * 10**6, seconds=5).stdout == "1\n"

    def test_large_whole_numbers_print(self, jail: Bubblewrap) -> None:
        assert len(jail.run("print(10**5000)", seconds=5).stdout) == 5002

    @pytest.mark.parametrize(
        ("source", "code", "stderr"),
        [
            ("raise SystemExit(7)", 7, ""),
            ("1/0", 1, "ZeroDivisionError"),
            ("x =", 1, "SyntaxError"),
            ("x = 'a' * 10**9", 1, "MemoryError"),
            ("def f(): f()\nf()", 1, "RecursionError"),
        ],
    )
    def test_failures_are_told(self, jail: Bubblewrap, source: str, code: int, stderr: str) -> None:
        ran = jail.run(source, seconds=5)
        assert ran.exit_code == code
        assert stderr in ran.stderr
        assert not ran.timed_out

    @pytest.mark.parametrize(
        "source",
        [
            "while True: pass",
            "10**10**9",
            "import signal\nfor s in range(1, 32):\n    try: signal.signal(s, signal.SIG_IGN)\n"
            "    except (OSError, ValueError): pass\nwhile True: pass",
        ],
    )
    def test_processor_time_ends(self, jail: Bubblewrap, source: str) -> None:
        assert jail.run(source, seconds=1).timed_out

    @pytest.mark.parametrize(
        "source",
        [
            "import time\ntime.sleep(600)",
            "import os\nos.close(1)\nos.close(2)\nimport time\ntime.sleep(600)",
            "import sys, time\nprint('said', flush=True)\ntime.sleep(600)",
        ],
    )
    def test_waiting_ends(self, jail: Bubblewrap, source: str) -> None:
        ran = jail.run(source, seconds=5, wall_seconds=2)
        assert ran.timed_out
        assert ran.stdout in ("", "said\n")

    def test_output_is_bounded(self, jail: Bubblewrap) -> None:
        ran = jail.run("while True: print('a' * 1000)", seconds=10, output_bytes=50_000)
        assert len(ran.stdout) == 50_000
        assert ran.exit_code != 0
        assert not ran.timed_out

    def test_output_that_is_no_text(self, jail: Bubblewrap) -> None:
        ran = jail.run("import os\nos.write(1, b'\\xff\\xfe')", seconds=5)
        assert ran.stdout == "��"

    @pytest.mark.parametrize("payload", [*HARMLESS.values(), *HOSTILE.values()], ids=str)
    def test_escapes_are_stopped(self, jail: Bubblewrap, payload: str) -> None:
        ran = jail.run(attempt(payload), seconds=5, wall_seconds=60)
        assert "ESCAPED" not in ran.stdout
        assert ran.stdout.startswith("stopped") or ran.exit_code != 0

    def test_nothing_is_left(self, jail: Bubblewrap) -> None:
        lasting = left_over().keys()  # the workers that other tests of this process may have
        for source in ("while True: pass", "import time\ntime.sleep(600)", "print(1)"):
            jail.run(source, seconds=1, wall_seconds=2)
        end = time.monotonic() + 10
        while left_over().keys() - lasting and time.monotonic() < end:
            time.sleep(0.05)
        assert [v for k, v in left_over().items() if k not in lasting] == []

    def test_root_gives_every_run_a_user_of_its_own(self, jail: Bubblewrap) -> None:
        if jail.jail.way is not Way.ROOT:
            pytest.skip("only root can become another user")
        users = {jail.run("import os\nprint(os.getresuid())", seconds=5).stdout for _ in "ab"}
        assert len(users) == 2

    def test_text_of_two_runs_does_not_meet(self, jail: Bubblewrap) -> None:
        jail.run("import builtins\nbuiltins.mine = 1", seconds=5)
        assert "NameError" in jail.run("mine", seconds=5).stderr

    def test_tools_that_are_missing_are_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", "/nowhere")
        with pytest.raises(ConfigError, match=r"bwrap, setpriv, prlimit not found"):
            Bubblewrap.probe()


def test_the_payloads_escape_without_a_sandbox() -> None:
    source = "".join(map(attempt, HARMLESS.values()))
    ran = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
    assert ran.stdout.count("ESCAPED") >= len(HARMLESS) - 2


class TestMonty:
    def test_runs_text(self, monty: MontySandbox) -> None:
        assert monty.run("print(6 * 7)", seconds=5) == ("42\n", "", False, 0)

    def test_failures_are_told(self, monty: MontySandbox) -> None:
        ran = monty.run("print(1)\n1/0", seconds=5)
        assert ran.stdout == "1\n"
        assert "ZeroDivisionError" in ran.stderr
        assert ran.exit_code == 1

    def test_time_memory_and_output_end(self, monty: MontySandbox) -> None:
        assert monty.run("while True: pass", seconds=0.5).timed_out
        assert "MemoryError" in monty.run("x = 'a' * 10**9", seconds=5).stderr
        ran = monty.run("while True: print('a' * 1000)", seconds=20, output_bytes=10_000)
        assert len(ran.stdout) == 10_000
        assert ran.exit_code == 1

    @pytest.mark.parametrize(
        "payload",
        [
            "open('/etc/passwd').read()",
            "import socket",
            "import subprocess",
            "import ctypes",
            "import os\nos.listdir('/')",
            "import os\nos.environ['PATH']",
            "__import__('os').fork()",
        ],
    )
    def test_escapes_are_stopped(self, monty: MontySandbox, payload: str) -> None:
        ran = monty.run(f"{payload}\nprint('ESCAPED')", seconds=5)
        assert ran.stdout == ""
        assert ran.exit_code == 1

    def test_standard_input_is_refused(self, monty: MontySandbox) -> None:
        with pytest.raises(ConfigError, match="no standard input"):
            monty.run("print(1)", stdin="x", seconds=5)


class TestBest:
    """In processes of their own: the choice is made once in each."""

    def chosen(self, *flags: str, path: str) -> str:
        lines = (
            f"import sys; sys.path.insert(0, {str(SOURCE)!r})",
            "from r2reasoner.errors import ConfigError",
            "from r2reasoner.sandbox import Sandbox",
            "try: print(Sandbox.best().name)",
            "except ConfigError as error: print('refused:', error)",
        )
        ran = subprocess.run(
            [sys.executable, *flags, "-c", "\n".join(lines)],
            env={"PATH": path},
            capture_output=True,
            text=True,
            check=True,
        )
        return ran.stdout.strip()

    def test_bubblewrap_first(self, jail: Bubblewrap) -> None:
        assert self.chosen(path=os.environ["PATH"]) == jail.name

    def test_monty_without_bubblewrap(self, monty: MontySandbox) -> None:
        assert self.chosen(path="/nowhere") == monty.name

    def test_refused_without_both(self) -> None:
        said = self.chosen("-S", path="/nowhere")
        assert said.startswith("refused:")
        assert "apt-get install bubblewrap" in said
        assert "pip install" in said


SERVICE = """
import json, os, sys, time
print(json.dumps("ready"), flush=True)
for line in sys.stdin:
    asked = json.loads(line)
    if asked == "sleep":
        time.sleep(600)
    elif asked == "die":
        os._exit(1)
    elif asked == "babble":
        print("no JSON", flush=True)
    elif asked == "flood":
        while True:
            print("a" * 10**6, end="")
    else:
        print(json.dumps({"pid": os.getpid(), "asked": asked, "user": os.getuid()}), flush=True)
"""


class TestWorker:
    @pytest.fixture
    def worker(self, jail: Bubblewrap) -> Worker:
        return Worker(SERVICE, memory_bytes=256 * MIB)

    def test_answers_many_times_from_one_start(self, worker: Worker) -> None:
        replies = [worker.ask({"n": n, "text": "é" * 50_000}, seconds=30) for n in range(5)]
        assert [reply["asked"]["n"] for reply in replies] == list(range(5))
        assert replies[0]["user"] != 0
        assert worker.starts == 1
        worker.close()

    @pytest.mark.parametrize("fault", ["sleep", "die", "babble", "flood"])
    def test_a_fault_is_no_answer_and_the_next_question_is_answered(
        self, worker: Worker, fault: str
    ) -> None:
        assert worker.ask(fault, seconds=2) is None
        assert worker.ask("well?", seconds=30)["asked"] == "well?"
        assert worker.starts == 2
        worker.close()

    def test_packages_are_there_and_others_are_not(self, jail: Bubblewrap) -> None:
        source = (
            "import json, sys, importlib.util as u\nprint(json.dumps('ready'), flush=True)\n"
            "for line in sys.stdin:\n"
            "    print(json.dumps(u.find_spec(json.loads(line)) is not None), flush=True)"
        )
        worker = Worker(source, distributions=["mpmath"])
        found = [worker.ask(name, seconds=30) for name in ("mpmath", "numpy", "r2reasoner")]
        assert found == [True, False, False]
        worker.close()

    def test_a_service_that_does_not_start_is_an_error(self, jail: Bubblewrap) -> None:
        with pytest.raises(ConfigError, match="did not start"):
            Worker("1/0").ask("?", seconds=5)

    def test_a_package_that_is_missing_is_named(self, jail: Bubblewrap) -> None:
        with pytest.raises(ConfigError, match="no-such-package is not installed"):
            Worker("", distributions=["no-such-package"]).ask("?", seconds=5)
