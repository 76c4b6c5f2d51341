"""A system call filter for code that has no business with the kernel beyond memory and pipes.

Name spaces already part a sandbox from files, network and processes; the filter closes what they
leave open: sockets that know no name space (vsock), memory outside the limits (memfd, System V),
and new user name spaces, through which most kernel faults are reached. On processors without a
table here there is no filter, and the name spaces stand alone.
"""

import errno
import platform
import struct
from collections.abc import Mapping
from typing import Final, NamedTuple


class _Machine(NamedTuple):
    arch: int
    clone: int
    denied: tuple[int, ...]


_COMMON: Final = (425, 426, 427, 428, 429, 430, 431, 432, 433, 438, 442, 447)
"""io_uring_*, open_tree, move_mount, fs*, pidfd_getfd, mount_setattr, memfd_secret."""
_CLONE3: Final = 435
_NEW_NAMESPACES: Final = 0x7E020080
_X32: Final = 0x40000000
# In turn: socket, shmget, semget, msgget, mq_open, ptrace, personality, pivot_root, chroot, mount,
# umount2, add_key, request_key, keyctl, unshare, perf_event_open, open_by_handle_at, setns,
# process_vm_readv, process_vm_writev, memfd_create, bpf, userfaultfd.
_X86_64: Final = (
    *(41, 29, 64, 68, 240, 101, 135, 155, 161, 165, 166, 248, 249, 250, 272, 298, 304, 308),
    *(310, 311, 319, 321, 323),
)
_AARCH64: Final = (
    *(198, 194, 190, 186, 180, 117, 92, 41, 51, 40, 39, 217, 218, 219, 97, 241, 265, 268),
    *(270, 271, 279, 280, 282),
)
_MACHINES: Final[Mapping[str, _Machine]] = {
    "x86_64": _Machine(0xC000003E, 56, _X86_64 + _COMMON),
    "aarch64": _Machine(0xC00000B7, 220, _AARCH64 + _COMMON),
}

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _FAIL = 0x7FFF0000, 0x80000000, 0x00050000


def program() -> bytes | None:
    """Return the filter as the kernel reads it (BPF), or None for a processor without a table."""
    machine = _MACHINES.get(platform.machine())
    if machine is None:
        return None
    refuse = _step(_RETURN, _FAIL | errno.EPERM)
    lines = [
        _step(_LOAD, 4),
        _step(_EQUAL, machine.arch, 1, 0),
        _step(_RETURN, _KILL),
        _step(_LOAD, 0),
        _step(_AT_LEAST, _X32, 0, 1),
        refuse,
        _step(_EQUAL, _CLONE3, 0, 1),
        _step(_RETURN, _FAIL | errno.ENOSYS),
    ]
    for number in machine.denied:
        lines += [_step(_EQUAL, number, 0, 1), refuse]
    lines += [
        _step(_EQUAL, machine.clone, 0, 3),
        _step(_LOAD, 16),
        _step(_ANY_BIT, _NEW_NAMESPACES, 0, 1),
        refuse,
        _step(_RETURN, _ALLOW),
    ]
    return b"".join(lines)


def _step(code: int, value: int, jump_if: int = 0, jump_else: int = 0) -> bytes:
    return struct.pack("=HBBI", code, jump_if, jump_else, value)
