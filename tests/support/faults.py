"""Real faults in real processes: the n-th filesystem call below a directory fails, or kills.

A tracer in pure Python over ptrace(2). A filter of seccomp(2) stops the traced processes, and all
that they start, before the calls that may count; whichever of those names the watched directory,
by a path or by a descriptor, is counted. At the n-th the call is replaced by an error, as strace
injects one, or a signal is sent. No process knows that it is watched.

x86-64 Linux only. The calling thread must have no other children while it traces.
"""

import contextlib
import ctypes
import errno
import os
import platform
import signal
import struct
import sys
import tempfile
import threading
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import NoReturn, TypeAlias

TIMEOUT = 120.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """How a system call names files: arguments that are paths, with the directory each starts at.

    Attributes:
        number: of x86-64.
        paths: (argument with the directory's descriptor, or None; argument with the path).
        descriptor: the argument that is an open file.
        writes: for open and openat, the argument with the flags: it counts where it may write.
    """

    number: int
    paths: tuple[tuple[int | None, int], ...] = ()
    descriptor: int | None = None
    writes: int | None = None


_AT_0 = ((None, 0),)
_AT_0_1 = ((0, 1),)

CHANGES: Mapping[str, Call] = {
    "open": Call(number=2, paths=_AT_0, writes=1),
    "openat": Call(number=257, paths=_AT_0_1, writes=2),
    "creat": Call(number=85, paths=_AT_0),
    "mkdir": Call(number=83, paths=_AT_0),
    "mkdirat": Call(number=258, paths=_AT_0_1),
    "rename": Call(number=82, paths=((None, 0), (None, 1))),
    "renameat": Call(number=264, paths=((0, 1), (2, 3))),
    "renameat2": Call(number=316, paths=((0, 1), (2, 3))),
    "link": Call(number=86, paths=((None, 0), (None, 1))),
    "linkat": Call(number=265, paths=((0, 1), (2, 3))),
    "symlink": Call(number=88, paths=((None, 1),)),
    "symlinkat": Call(number=266, paths=((1, 2),)),
    "unlink": Call(number=87, paths=_AT_0),
    "unlinkat": Call(number=263, paths=_AT_0_1),
    "rmdir": Call(number=84, paths=_AT_0),
    "write": Call(number=1, descriptor=0),
    "pwrite64": Call(number=18, descriptor=0),
    "writev": Call(number=20, descriptor=0),
    "pwritev": Call(number=296, descriptor=0),
    "pwritev2": Call(number=328, descriptor=0),
    "sendfile": Call(number=40, descriptor=0),
    "copy_file_range": Call(number=326, descriptor=2),
    "splice": Call(number=275, descriptor=2),
    "truncate": Call(number=76, paths=_AT_0),
    "ftruncate": Call(number=77, descriptor=0),
    "fallocate": Call(number=285, descriptor=0),
    "fsync": Call(number=74, descriptor=0),
    "fdatasync": Call(number=75, descriptor=0),
    "syncfs": Call(number=306, descriptor=0),
    "flock": Call(number=73, descriptor=0),
    "chmod": Call(number=90, paths=_AT_0),
    "fchmod": Call(number=91, descriptor=0),
    "fchmodat": Call(number=268, paths=_AT_0_1),
    "fchmodat2": Call(number=452, paths=_AT_0_1),
    "utimensat": Call(number=280, paths=_AT_0_1),
}
"""What creates, changes, removes, locks or makes durable."""

LOOKS: Mapping[str, Call] = {
    "open": Call(number=2, paths=_AT_0),
    "openat": Call(number=257, paths=_AT_0_1),
    "read": Call(number=0, descriptor=0),
    "pread64": Call(number=17, descriptor=0),
    "getdents64": Call(number=217, descriptor=0),
    "stat": Call(number=4, paths=_AT_0),
    "lstat": Call(number=6, paths=_AT_0),
    "fstat": Call(number=5, descriptor=0),
    "newfstatat": Call(number=262, paths=_AT_0_1),
    "statx": Call(number=332, paths=_AT_0_1),
    "access": Call(number=21, paths=_AT_0),
    "faccessat": Call(number=269, paths=_AT_0_1),
    "faccessat2": Call(number=439, paths=_AT_0_1),
    "readlink": Call(number=89, paths=_AT_0),
    "readlinkat": Call(number=267, paths=_AT_0_1),
    "statfs": Call(number=137, paths=_AT_0),
    "fstatfs": Call(number=138, descriptor=0),
}
"""What only looks; every opening is among them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Watch:
    """Which calls count: those below a directory."""

    root: Path
    calls: Mapping[str, Call] = field(default_factory=lambda: CHANGES)


@dataclass(frozen=True, kw_only=True, slots=True)
class Refuse:
    """The call is not made, and gives that errno."""

    code: int

    def __str__(self) -> str:
        return errno.errorcode[self.code]


@dataclass(frozen=True, kw_only=True, slots=True)
class Send:
    """The process that was started first gets that signal; what it started gets none."""

    signal: signal.Signals

    def __str__(self) -> str:
        return self.signal.name


@dataclass(frozen=True, kw_only=True, slots=True)
class KillAll:
    """Every process is killed before the call is made, as when a container ends."""

    def __str__(self) -> str:
        return "SIGKILL to all"


@dataclass(frozen=True, kw_only=True, slots=True)
class Do:
    """The process waits while that is done; then the call is made."""

    action: Callable[[], object]

    def __str__(self) -> str:
        return "done"


Strike: TypeAlias = Refuse | Send | KillAll | Do


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """What happens at the n-th call that counts, from 1; afterwards nothing more."""

    nth: int
    strike: Strike


@dataclass(frozen=True, kw_only=True, slots=True)
class Command:
    """A program, its arguments and its environment."""

    arguments: Sequence[str]
    environment: Mapping[str, str]


Program: TypeAlias = Command | Callable[[], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Traced:
    """How a traced program ended.

    Attributes:
        code: exit status; the negative number of the signal that ended it.
        stdout: what it and its children wrote there.
        stderr: likewise.
        calls: how many counted.
        struck: the call that the fault met; empty where the program ended before.
        overtime: it was killed because it did not end.
    """

    code: int
    stdout: str
    stderr: str
    calls: int
    struck: str
    overtime: bool


def trace(
    program: Program, watch: Watch, fault: Fault | None = None, timeout: float = TIMEOUT
) -> Traced:
    """Runs a program, and everything that it starts, to the end.

    A callable runs in a forked child: 0 where it returns, 1 and a traceback where it raises, and
    what SystemExit says.

    Args:
        program: what to run.
        watch: which calls count.
        fault: what happens at one of them; nothing, if None.
        timeout: seconds after which everything is killed.

    Raises:
        OSError: ptrace(2) is refused here; `unavailable` says so first.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        main = _fork(program, watch, out.fileno(), err.fileno())
        tracer = _Tracer(main, watch, fault)
        timer = threading.Timer(timeout, tracer.give_up)
        timer.start()
        try:
            tracer.follow()
        finally:
            timer.cancel()
            timer.join()
        out.seek(0)
        err.seek(0)
        return Traced(
            code=tracer.code,
            stdout=out.read().decode(errors="replace"),
            stderr=err.read().decode(errors="replace"),
            calls=tracer.calls,
            struck=tracer.struck,
            overtime=tracer.overtime,
        )


@cache
def unavailable() -> str | None:
    """Why nothing can be traced here, found by trying."""
    if sys.platform != "linux" or platform.machine() != "x86_64" or sys.maxsize < 2**32:
        return f"the tracer knows x86-64 Linux only, not {platform.machine()} {sys.platform}"
    with tempfile.TemporaryDirectory() as name:
        place = Path(name, "made")
        fault = Fault(nth=1, strike=Refuse(code=errno.EDQUOT))
        try:
            done = trace(place.mkdir, Watch(root=Path(name).resolve()), fault, timeout=30)
        except OSError as error:
            return f"ptrace is refused here: {error.strerror}"
        if "Disk quota exceeded" not in done.stderr or place.exists():
            return f"ptrace or seccomp does not work here: exit {done.code} {done.stderr[-200:]}"
    return None


def spread(total: int, count: int) -> list[int]:
    """At most that many of 1 to total, the first and the last among them, evenly spread."""
    if total <= count:
        return list(range(1, total + 1))
    return sorted({1 + round(step * (total - 1) / (count - 1)) for step in range(count)})


# -- the child ---------------------------------------------------------------------------------


def _fork(program: Program, watch: Watch, out: int, err: int) -> int:
    """Starts the program, traced; its process id. It waits until it is traced."""
    ready, go = os.pipe()
    with warnings.catch_warnings():
        # The child runs one thing and leaves by _exit; it takes no lock of another thread.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        os.close(go)
        _become(program, watch, (ready, out, err))
    os.close(ready)
    options = _EXITKILL | _TRACESECCOMP | _TRACEEXEC | _TRACECLONE | _TRACEVFORK | _TRACEFORK
    try:
        _ptrace(_SEIZE, child, 0, options)
        os.write(go, b"!")
    except OSError:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise
    finally:
        os.close(go)
    return child


def _become(program: Program, watch: Watch, descriptors: tuple[int, int, int]) -> NoReturn:
    """The child's life."""
    ready, out, err = descriptors
    code = 70
    try:
        os.setsid()
        nothing = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((nothing, 0), (out, 1), (err, 2)):
            os.dup2(source, target)
        os.read(ready, 1)
        os.close(ready)
        _install_filter(watch.calls.values())
        if isinstance(program, Command):
            arguments = list(program.arguments)
            os.execve(arguments[0], arguments, dict(program.environment))  # noqa: S606
        program()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    except BaseException:  # noqa: BLE001  # nothing of the parent's may run in the child
        code = 1
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(code)


def _install_filter(calls: Iterable[Call]) -> None:
    """seccomp(2): these calls stop for the tracer, all others go on at full speed."""
    numbers = {call.number: call.writes for call in calls}
    program = [_load(4), _jump(_JEQ, _ARCHITECTURE, 1, 0), _give(_ALLOW), _load(0)]
    for number, writes in numbers.items():
        if writes is None:
            program += [_jump(_JEQ, number, 0, 1), _give(_TO_TRACER)]
            continue
        looks_at = 16 + 8 * writes
        program += [
            _jump(_JEQ, number, 0, 4),
            _load(looks_at),
            _jump(_JSET, _MAY_WRITE, 0, 1),
            _give(_TO_TRACER),
            _give(_ALLOW),
        ]
    program.append(_give(_ALLOW))
    text = ctypes.create_string_buffer(b"".join(program))
    header = ctypes.create_string_buffer(
        struct.pack("HxxxxxxP", len(program), ctypes.addressof(text))
    )
    libc = _libc()
    if libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0) or libc.prctl(
        _SECCOMP, _FILTER, ctypes.c_void_p(ctypes.addressof(header)), 0, 0
    ):
        raise OSError(ctypes.get_errno(), "seccomp")


# -- the parent --------------------------------------------------------------------------------


class _Tracer:
    """Follows one program until nothing of it is left."""

    def __init__(self, main: int, watch: Watch, fault: Fault | None) -> None:
        self.code = -1
        self.calls = 0
        self.struck = ""
        self.overtime = False
        self._killing = False
        self._main = main
        self._root = os.path.realpath(watch.root)
        self._names = {call.number: (name, call) for name, call in watch.calls.items()}
        self._fault = fault
        self._alive = {main}

    def follow(self) -> None:
        """Until the last process has ended."""
        while True:
            try:
                task, status = os.waitpid(-1, _ALL_KINDS)
            except ChildProcessError:
                return
            if os.WIFSTOPPED(status):
                self._alive.add(task)
                with contextlib.suppress(ProcessLookupError):
                    if self._killing:
                        # Born while the others were killed.
                        os.kill(task, signal.SIGKILL)
                    self._stopped(task, status)
                continue
            self._alive.discard(task)
            if task == self._main:
                self.code = os.waitstatus_to_exitcode(status)

    def give_up(self) -> None:
        """Called by the clock."""
        self.overtime = True
        self._kill_all()

    def _stopped(self, task: int, status: int) -> None:
        event, number = status >> 16, os.WSTOPSIG(status)
        if event == _EVENT_SECCOMP:
            self._look(task)
        elif event == _EVENT_STOP and number != signal.SIGTRAP:
            # Stopped as by a terminal: it stays so until somebody continues it.
            _ptrace(_LISTEN, task)
            return
        _ptrace(_CONTINUE, task, 0, 0 if event else number)

    def _look(self, task: int) -> None:
        registers = _Registers()
        _ptrace(_GET_REGISTERS, task, 0, ctypes.addressof(registers))
        known = self._names.get(registers.orig_rax)
        if known is None:
            return
        name, call = known
        where = next(filter(self._is_inside, _places(task, call, registers)), None)
        if where is None:
            return
        self.calls += 1
        if self._fault is None or self.calls != self._fault.nth:
            return
        self.struck = f"{name} {where}"
        match self._fault.strike:
            case Refuse(code=code):
                # A call of number -1 is not made, and what is in rax is its result.
                registers.orig_rax = 2**64 - 1
                registers.rax = 2**64 - code
                _ptrace(_SET_REGISTERS, task, 0, ctypes.addressof(registers))
            case Send(signal=number):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self._main, number)
            case KillAll():
                self._kill_all()
            case Do(action=action):
                action()

    def _is_inside(self, path: str) -> bool:
        return path == self._root or path.startswith(f"{self._root}/")

    def _kill_all(self) -> None:
        self._killing = True
        for task in tuple(self._alive):
            with contextlib.suppress(ProcessLookupError):
                os.kill(task, signal.SIGKILL)


def _places(task: int, call: Call, registers: "_Registers") -> Iterator[str]:
    """Where the files lie that a call is about."""
    arguments = registers.arguments
    if call.descriptor is not None:
        yield _link(task, f"fd/{_signed(arguments[call.descriptor])}")
    for directory, path in call.paths:
        text = _string(task, arguments[path])
        if not text.startswith("/"):
            base = None if directory is None else _signed(arguments[directory])
            start = _link(task, "cwd" if base in (None, _AT_FDCWD) else f"fd/{base}")
            text = os.path.join(start, text)
        yield os.path.normpath(text)


def _link(task: int, name: str) -> str:
    try:
        return os.readlink(f"/proc/{task}/{name}").removesuffix(" (deleted)")
    except OSError:
        return ""


def _string(task: int, address: int) -> str:
    """A string in the memory of a stopped task."""
    if not address:
        return ""
    with contextlib.suppress(OSError):
        memory = os.open(f"/proc/{task}/mem", os.O_RDONLY | os.O_CLOEXEC)
        try:
            data = os.pread(memory, _LONGEST, address)
        finally:
            os.close(memory)
        return os.fsdecode(data.partition(b"\0")[0])
    return ""


def _signed(value: int) -> int:
    return ctypes.c_int(value & 0xFFFFFFFF).value


# fmt: off
_REGISTERS = (
    "r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx",
    "rsi", "rdi", "orig_rax", "rip", "cs", "eflags", "rsp", "ss", "fs_base", "gs_base", "ds",
    "es", "fs", "gs",
)
# fmt: on


class _Registers(ctypes.Structure):
    """user_regs_struct of x86-64, sys/user.h."""

    orig_rax: int
    rax: int
    _fields_ = tuple((name, ctypes.c_uint64) for name in _REGISTERS)

    @property
    def arguments(self) -> tuple[int, ...]:
        """The six of a system call."""
        return tuple(getattr(self, name) for name in ("rdi", "rsi", "rdx", "r10", "r8", "r9"))


@cache
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
    libc.ptrace.restype = ctypes.c_long
    return libc


def _ptrace(request: int, task: int, address: int = 0, data: int = 0) -> None:
    if _libc().ptrace(request, task, address, data) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), "ptrace")


def _load(offset: int) -> bytes:
    """Loads a word of struct seccomp_data."""
    return struct.pack("HBBI", 0x20, 0, 0, offset)


def _jump(kind: int, value: int, yes: int, no: int) -> bytes:
    return struct.pack("HBBI", kind, yes, no, value)


def _give(value: int) -> bytes:
    return struct.pack("HBBI", 0x06, 0, 0, value)


_JEQ, _JSET = 0x15, 0x45  # linux/bpf_common.h
_ARCHITECTURE = 0xC000003E  # AUDIT_ARCH_X86_64, linux/audit.h
_ALLOW, _TO_TRACER = 0x7FFF0000, 0x7FF00000  # linux/seccomp.h
_SECCOMP, _FILTER, _NO_NEW_PRIVILEGES = 22, 2, 38  # linux/prctl.h
_MAY_WRITE = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | 0x400000  # and O_TMPFILE
_CONTINUE, _GET_REGISTERS, _SET_REGISTERS = 7, 12, 13  # linux/ptrace.h
_SEIZE, _LISTEN = 0x4206, 0x4208
_TRACEFORK, _TRACEVFORK, _TRACECLONE, _TRACEEXEC = 2, 4, 8, 16
_TRACESECCOMP, _EXITKILL = 0x80, 0x100000
_EVENT_SECCOMP, _EVENT_STOP = 7, 128
_ALL_KINDS = 0x60000000  # __WALL and __WNOTHREAD: only what this thread started or traces
_AT_FDCWD = -100
_LONGEST = 4096
