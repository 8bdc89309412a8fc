"""Record the calls by which a process changes files, in order and with the bytes written.

A forked child runs a function while this process traces it (``ptrace``); a filter of the kernel
(``seccomp``) lets all calls except those below pass at full speed. The calls of every library are
seen, including SQLite's, without a compiler or another program. This needs Linux 5.3 or later on
x86-64 or ARM64, and a kernel that lets a process trace its own child.
"""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

# Numbers of the calls, x86-64 and ARM64. What copies within the kernel, or maps files to write,
# no store does with data that it counts on (SQLite maps its -shm file, which nobody needs again).
CALLS: dict[str, tuple[int | None, int | None]] = {
    "open": (2, None), "openat": (257, 56), "creat": (85, None),
    "write": (1, 64), "writev": (20, 66), "pwrite64": (18, 68), "pwritev": (296, 70),
    "ftruncate": (77, 46), "truncate": (76, 45), "fallocate": (285, 47),
    "fsync": (74, 82), "fdatasync": (75, 83),
    "rename": (82, None), "renameat": (264, 38), "renameat2": (316, 276),
    "unlink": (87, None), "unlinkat": (263, 35), "rmdir": (84, None),
    "mkdir": (83, None), "mkdirat": (258, 34), "link": (86, None), "linkat": (265, 37),
}  # fmt: skip
AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

TRACEME, CONT, SETOPTIONS, SYSCALL_INFO, SYSCALL = 0, 7, 0x4200, 0x420E, 24
OPTIONS = 0x1 | 0x2 | 0x4 | 0x8 | 0x80 | 0x100000
"""Mark stops at calls; follow forks, vforks, threads; stop at the filter; die with the tracer."""
SECCOMP_STOP = 7
WALL = 0x40000000
AT_REMOVEDIR = 0x200

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
libc.ptrace.restype = ctypes.c_long
libc.prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4


class Call(NamedTuple):
    """One call that succeeded.

    Attributes
    ----------
    kind
        ``create`` and ``open`` (of a file to write), ``write``, ``truncate``, ``sync`` (of a file
        or folder), ``rename``, ``unlink``, ``mkdir``, ``rmdir``.
    path
        Path at the time of the call.
    inode
        Inode of the file that was opened, written or synced; 0 for other calls.
    began, ended
        Positions in the order of all calls at which it was entered and returned.
    when
        Monotonic time of the return.
    data
        Bytes written.
    offset
        Offset of a write; new size for ``truncate``.
    other
        New path for ``rename``.
    """

    kind: str
    path: str
    inode: int
    began: int
    ended: int
    when: float
    data: bytes = b""
    offset: int = 0
    other: str = ""


def record_calls(root: Path, run: Callable[[], None]) -> list[Call]:
    """Run a function in a child process and record what it does to files below a folder.

    Meanwhile this process waits for any child, so it should have no other.

    Raises
    ------
    SystemExit
        If the system does not allow tracing, or if the child failed.
    """
    child = os.fork()
    if child == 0:
        _run_traced(run)
    tracer = _Tracer(child, str(root))
    status = tracer.follow()
    if status != 0:
        raise SystemExit(f"the recorded process failed ({status})")
    return sorted(tracer.calls, key=lambda call: call.ended)


def _run_traced(run: Callable[[], None]) -> None:
    status = 1
    try:
        if libc.ptrace(TRACEME, 0, None, None) != 0:
            raise SystemExit(f"no process can be traced here: {os.strerror(ctypes.get_errno())}")
        os.kill(os.getpid(), signal.SIGSTOP)
        _install_filter()
        run()
        status = 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(status)


def _numbers() -> dict[int, str]:
    machine = platform.machine()
    if machine not in AUDIT:
        raise SystemExit(f"calls can be recorded on x86-64 and ARM64 only, not on {machine}")
    column = list(AUDIT).index(machine)
    return {n: name for name, some in CALLS.items() if (n := some[column]) is not None}


def _install_filter() -> None:
    """Make the kernel stop the process at the calls above and at no others."""
    numbers = list(_numbers())

    def step(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
        return struct.pack("<HBBI", code, yes, no, value)

    program = [step(0x20, 4), step(0x15, AUDIT[platform.machine()], 1, 0), step(0x06, 0x7FFF0000)]
    program.append(step(0x20, 0))
    for index, number in enumerate(numbers):
        program.append(step(0x15, number, len(numbers) - index, 0))
    program += [step(0x06, 0x7FFF0000), step(0x06, 0x7FF00000)]
    code = ctypes.create_string_buffer(b"".join(program))
    head = struct.pack("<HxxxxxxQ", len(program), ctypes.addressof(code))
    if libc.prctl(38, 1, 0, 0, 0) != 0:  # no new privileges
        raise SystemExit(os.strerror(ctypes.get_errno()))
    buffer = ctypes.create_string_buffer(head)
    if libc.prctl(22, 2, ctypes.addressof(buffer), 0, 0) != 0:
        raise SystemExit(f"no filter of calls can be set: {os.strerror(ctypes.get_errno())}")


class _Tracer:
    """Tracer of a child and all its threads and children."""

    def __init__(self, child: int, root: str) -> None:
        self._child, self._root = child, root
        self._names = _numbers()
        self._pending: dict[int, dict[str, Any]] = {}
        self._count = 0
        self.calls: list[Call] = []

    def follow(self) -> int:
        """Let the child run to its end and return its exit status."""
        os.waitpid(self._child, 0)
        if libc.ptrace(SETOPTIONS, self._child, None, OPTIONS) != 0:
            raise SystemExit(f"tracing failed: {os.strerror(ctypes.get_errno())}")
        self._go_on(self._child)
        while True:
            pid, status = os.waitpid(-1, WALL)
            if os.WIFEXITED(status) or os.WIFSIGNALED(status):
                if pid == self._child:
                    return os.waitstatus_to_exitcode(status)
                continue
            sig, event = os.WSTOPSIG(status), status >> 16
            if event == SECCOMP_STOP:
                self._enter(pid)
            elif sig == signal.SIGTRAP | 0x80:
                self._leave(pid)
            else:
                harmless = event or sig in (signal.SIGSTOP, signal.SIGTRAP)
                self._go_on(pid, signal=0 if harmless else sig)

    @staticmethod
    def _go_on(pid: int, *, to_end_of_call: bool = False, signal: int = 0) -> None:
        libc.ptrace(SYSCALL if to_end_of_call else CONT, pid, None, signal)

    @staticmethod
    def _info(pid: int) -> bytes:
        buffer = ctypes.create_string_buffer(88)
        libc.ptrace(SYSCALL_INFO, pid, 88, ctypes.addressof(buffer))
        return buffer.raw

    # -- a call ------------------------------------------------------------------------------

    def _enter(self, pid: int) -> None:
        self._count += 1
        number, *arguments = struct.unpack_from("<7Q", self._info(pid), 24)
        name = self._names.get(number, "")
        try:
            seen = self._seen(pid, name, arguments)
        except OSError:  # a handle that is not open: the call will fail
            seen = None
        if seen is not None:
            seen["began"] = self._count
            self._pending[pid] = seen
        self._go_on(pid, to_end_of_call=seen is not None)

    def _leave(self, pid: int) -> None:
        self._count += 1
        seen = self._pending.pop(pid, None)
        (result,) = struct.unpack_from("<q", self._info(pid), 24)
        if seen is not None and result >= 0:
            if seen["kind"] in ("open", "create"):
                seen["inode"] = os.stat(f"/proc/{pid}/fd/{result}").st_ino
            if seen["kind"] == "write":
                seen["data"] = seen["data"][:result]
            self.calls.append(Call(**seen, ended=self._count, when=time.monotonic()))
        self._go_on(pid)

    def _seen(self, pid: int, name: str, arguments: list[int]) -> dict[str, Any] | None:
        """Return what a call is about to do; None if it does not concern the folder."""
        if name in ("write", "writev", "pwrite64", "pwritev", "ftruncate", "fsync", "fdatasync"):
            return self._seen_handle(pid, name, arguments)
        if name == "fallocate":
            return None  # it makes room, and changes no byte
        if name.endswith("at") or name == "renameat2":
            folder, *arguments = arguments
        else:
            folder = 2**32 - 100  # the present folder
        path = self._path(pid, folder, arguments[0])
        if name in ("open", "openat", "creat"):
            flags = os.O_CREAT | os.O_TRUNC | os.O_WRONLY if name == "creat" else arguments[1]
            if not flags & (os.O_CREAT | os.O_TRUNC) or not self._is_ours(path):
                return None
            offset = -1 if flags & os.O_TRUNC else 0
            kind = "open" if os.path.exists(path) else "create"
            return {"kind": kind, "path": path, "inode": 0, "offset": offset}
        if name in ("link", "linkat"):
            if self._is_ours(path):
                raise SystemExit(f"a link to {path} was made, which this recorder does not support")
            return None
        kind = name.removesuffix("2").removesuffix("at")
        if kind == "unlink" and name == "unlinkat" and arguments[1] & AT_REMOVEDIR:
            kind = "rmdir"
        other = ""
        if kind == "rename":
            new_folder, new = (2**32 - 100, arguments[1]) if name == "rename" else arguments[1:3]
            other = self._path(pid, new_folder, new)
        if kind == "truncate" or not (self._is_ours(path) or self._is_ours(other)):
            return None
        return {"kind": kind, "path": path, "inode": 0, "other": other}

    def _seen_handle(self, pid: int, name: str, arguments: list[int]) -> dict[str, Any] | None:
        handle = arguments[0]
        path = os.readlink(f"/proc/{pid}/fd/{handle}").removesuffix(" (deleted)")
        if not self._is_ours(path):
            return None
        inode = os.stat(f"/proc/{pid}/fd/{handle}").st_ino
        seen: dict[str, Any] = {"path": path, "inode": inode}
        if name in ("fsync", "fdatasync"):
            return {**seen, "kind": "sync"}
        if name == "ftruncate":
            return {**seen, "kind": "truncate", "offset": arguments[1]}
        if name in ("writev", "pwritev"):
            vector = self._bytes(pid, arguments[1], arguments[2] * 16)
            parts = struct.iter_unpack("<QQ", vector)
            data = b"".join(self._bytes(pid, where, size) for where, size in parts)
        else:
            data = self._bytes(pid, arguments[1], arguments[2])
        offset = arguments[3] if name.startswith("p") else self._position(pid, handle)
        return {**seen, "kind": "write", "data": data, "offset": offset}

    @staticmethod
    def _position(pid: int, handle: int) -> int:
        lines = Path(f"/proc/{pid}/fdinfo/{handle}").read_text().splitlines()
        facts = dict(line.split(":", 1) for line in lines)
        if int(facts["flags"], 8) & os.O_APPEND:
            return os.stat(f"/proc/{pid}/fd/{handle}").st_size
        return int(facts["pos"])

    def _is_ours(self, path: str) -> bool:
        return path == self._root or path.startswith(self._root + "/")

    def _path(self, pid: int, folder: int, address: int) -> str:
        data = b""
        while b"\0" not in data:  # page by page, as the next one may not be there
            data += self._bytes(pid, address + len(data), 4096 - (address + len(data)) % 4096)
        text = os.fsdecode(data.split(b"\0", 1)[0])
        at_cwd = folder & 0xFFFFFFFF == 2**32 - 100
        base = os.readlink(f"/proc/{pid}/cwd" if at_cwd else f"/proc/{pid}/fd/{folder}")
        return os.path.normpath(os.path.join(base, text))

    @staticmethod
    def _bytes(pid: int, address: int, size: int) -> bytes:
        if not size:
            return b""
        with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
            return os.pread(memory.fileno(), size, address)
