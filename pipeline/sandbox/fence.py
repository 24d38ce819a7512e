"""What a process gives up before it decodes an untrusted video: files, network, other processes, new programs.

    missing = close_fence()     # after everything is imported and opened; there is no way back

Four fences of Linux, none of which needs rights. Each is put up where the kernel has it; what is missing is returned.

- Landlock with no path at all: nothing can be opened, made, removed or renamed, no TCP port used, and (ABI 6) no signal
  sent and no abstract socket reached outside.
- seccomp with a list of what is allowed: reading and writing what is open, memory without new code, threads, clocks.
  All else, from ``socket`` and ``execve`` to ``ptrace`` and ``fchmod``, answers "not permitted".
- no_new_privs and an undumpable process: no set-user-ID program, no look into its memory from others of its user.
- A network namespace without interfaces.
"""

import ctypes
import os
import platform
import resource
import struct
import sys

_NAMESPACE_USER, _NAMESPACE_NETWORK = 0x10000000, 0x40000000
_SET_DUMPABLE, _SET_SECCOMP, _SET_NO_NEW_PRIVS, _SET_NAME = 4, 22, 38, 15
_CREATE_RULESET, _RESTRICT_SELF = 444, 446  # the same on every architecture

_ARCHITECTURE = 0xC000003E  # x86-64
_ALLOWED = (
    # x86-64 numbers, the frequent ones first
    0, 1, 8, 17, 19, 20, 5, 3,  # read write lseek pread64 readv writev fstat close
    11, 25, 28, 12, 202, 24,  # munmap mremap madvise brk futex sched_yield
    228, 229, 230, 35, 96, 201, 98, 100, 99,  # clock_gettime clock_getres clock_nanosleep nanosleep gettimeofday time
    # getrusage times sysinfo
    318, 204, 334, 273, 218, 324,  # getrandom sched_getaffinity rseq set_robust_list set_tid_address membarrier
    13, 14, 15, 131, 60, 231,  # rt_sigaction rt_sigprocmask rt_sigreturn sigaltstack exit exit_group
    39, 186, 102, 104, 107, 108, 63,  # getpid gettid getuid getgid geteuid getegid uname
    7, 271, 47, 32, 97,  # poll ppoll recvmsg dup getrlimit
)  # fmt: skip
_CLONE, _CLONE3, _MMAP, _MPROTECT, _FCNTL, _TGKILL, _PRCTL, _PRLIMIT, _FSTATAT = 56, 435, 9, 10, 72, 234, 157, 302, 262
_THREAD, _EXECUTABLE, _EMPTY_PATH = 0x10000, 4, 0x1000
_FCNTL_COMMANDS = (1, 2, 3, 1030)  # the flags of a descriptor, its mode, a duplicate: no owner who gets signals

_ALLOW, _KILL, _REFUSE, _UNKNOWN = 0x7FFF0000, 0x80000000, 0x00050001, 0x00050026  # the last two: EPERM, ENOSYS
_LOAD, _EQUAL, _ANY_BIT, _RETURN = 0x20, 0x15, 0x45, 0x06


def leave_network() -> str | None:
    """Move into a network of its own; call it while the process has one thread. Returns what is missing, or None."""
    if sys.platform != "linux":
        return "network namespace"
    flags = _NAMESPACE_NETWORK if os.geteuid() == 0 else _NAMESPACE_USER | _NAMESPACE_NETWORK
    return None if ctypes.CDLL(None).unshare(flags) == 0 else "network namespace"


def close_fence() -> list[str]:
    """Put up all fences; returns the names of those that this system does not have."""
    if sys.platform != "linux":
        return ["Landlock", "seccomp"]
    missing = []
    c = ctypes.CDLL(None, use_errno=True)
    if c.prctl(_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        missing.append("no_new_privs")
    c.prctl(_SET_DUMPABLE, 0, 0, 0, 0)
    if not _landlock(c):
        missing.append("Landlock")
    if not _seccomp(c):
        # without it a limit on processes is the next best thing; threads count, and root is exempt
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
        missing.append("seccomp")
    return missing


def _landlock(c: ctypes.CDLL) -> bool:
    version = c.syscall(_CREATE_RULESET, None, 0, 1)
    if version < 1:
        return False
    files = (1 << (13 if version < 2 else 14 if version < 3 else 15 if version < 5 else 16)) - 1
    network, scope = (3 if version >= 4 else 0), (3 if version >= 6 else 0)
    rules = struct.pack("QQQ", files, network, scope)[: 8 if version < 4 else 16 if version < 6 else 24]
    ruleset = c.syscall(_CREATE_RULESET, rules, len(rules), 0)
    if ruleset < 0:
        return False
    try:
        return c.syscall(_RESTRICT_SELF, ruleset, 0) == 0
    finally:
        os.close(ruleset)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def _seccomp(c: ctypes.CDLL) -> bool:
    if platform.machine() != "x86_64":
        return False
    code = b"".join(struct.pack("HBBI", *step) for step in _filter(os.getpid()))
    buffer = ctypes.create_string_buffer(code, len(code))
    program = _Program(len(code) // 8, ctypes.addressof(buffer))
    return c.prctl(_SET_SECCOMP, 2, ctypes.byref(program), 0, 0) == 0


def _filter(pid: int) -> list[tuple[int, int, int, int]]:
    """The BPF program: (operation, jump if true, jump if false, operand)."""
    steps = [(_LOAD, 0, 0, 4), (_EQUAL, 1, 0, _ARCHITECTURE), (_RETURN, 0, 0, _KILL), (_LOAD, 0, 0, 0)]
    for number in _ALLOWED:
        steps += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ALLOW)]
    # threads, but no processes; glibc falls back from clone3, whose flags a filter cannot see
    steps += _checked(_CLONE, 0, (_ANY_BIT, _THREAD))
    steps += [(_EQUAL, 0, 1, _CLONE3), (_RETURN, 0, 0, _UNKNOWN)]
    for number in (_MMAP, _MPROTECT):  # no new code
        steps += _checked(number, 2, (_ANY_BIT, _EXECUTABLE), forbidden=True)
    for command in _FCNTL_COMMANDS:
        steps += _checked(_FCNTL, 1, (_EQUAL, command), last=command == _FCNTL_COMMANDS[-1])
    steps += _checked(_TGKILL, 0, (_EQUAL, pid))  # abort()
    steps += _checked(_PRCTL, 0, (_EQUAL, _SET_NAME))
    steps += _checked(_PRLIMIT, 0, (_EQUAL, 0))  # its own limits
    steps += _checked(_FSTATAT, 3, (_ANY_BIT, _EMPTY_PATH))  # how glibc asks about a descriptor
    return [*steps, (_RETURN, 0, 0, _REFUSE)]


def _checked(
    number: int, argument: int, test: tuple[int, int], *, forbidden: bool = False, last: bool = True
) -> list[tuple[int, int, int, int]]:
    """Allow a call if the low half of an argument passes a test (or fails it: ``forbidden``), else refuse it."""
    operation, operand = test
    yes, no = (_REFUSE, _ALLOW) if forbidden else (_ALLOW, _REFUSE)
    load = [(_LOAD, 0, 0, 16 + 8 * argument), (operation, 0, 1, operand), (_RETURN, 0, 0, yes)]
    # a test that others follow falls through to them, with the call's number loaded again
    end = [(_RETURN, 0, 0, no)] if last else [(_LOAD, 0, 0, 0)]
    return [(_EQUAL, 0, len(load) + len(end), number), *load, *end]
