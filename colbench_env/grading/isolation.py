"""The layers between an answer and the machine, each switched on with system calls and each optional.

`enter_namespaces` and `build_root` are done once in a worker; `Confinement.apply` locks each forked child up before it
meets an answer.
What a layer does:

    pid      a process-id space of the worker's own: others cannot be seen or signalled, and its end ends everything
    mount    a file tree with the Python library only, read-only; /tmp is a small file system in memory, empty each test
    network  no interfaces, not even loopback
    ipc      no System V objects shared with others
    uid      root becomes a user that nobody else is
    no_new_privs  no program can raise its rights; landlock and seccomp need it
    landlock files are opened by a list of paths; without `mount` nothing at all can be written
    seccomp  no new processes, sockets, signals, mounts
    limits   CPU, address space, threads, file size, descriptors, core
"""

import ctypes
import os
import resource
import signal
import struct
import sys
from collections.abc import Iterable

from . import landlock, seccomp

LAYERS = ("pid", "mount", "network", "ipc", "uid", "no_new_privs", "landlock", "seccomp", "limits")
NAMESPACES = {"mount": 0x00020000, "ipc": 0x08000000, "pid": 0x20000000, "network": 0x40000000}
SCRATCH = "/tmp"
MAX_DESCRIPTORS = 64

_NEW_USER, _NEW_HOST = 0x10000000, 0x04000000
_RDONLY, _NOSUID, _NODEV, _NOATIME, _BIND, _REC, _PRIVATE = 1, 2, 4, 1024, 4096, 16384, 1 << 18
_DETACH = 2
_MOUNT_SETATTR, _AT_FDCWD, _AT_RECURSIVE = 442, -100, 0x8000
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38
_SYSTEM = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/share/zoneinfo", "/etc/ld.so.cache")
_DEVICES = ("/dev/null", "/dev/urandom")

libc = ctypes.CDLL(None, use_errno=True)
if sys.platform == "linux":  # elsewhere this file can be imported, not used
    libc.prctl.argtypes = (ctypes.c_int, *[ctypes.c_ulong] * 4)


def check(result: int, what: str) -> int:
    """Return the result of a C call. Raises OSError when it is negative."""
    if result < 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")
    return result


def enter_namespaces(wanted: set[str]) -> set[str]:
    """Move this process into namespaces of its own and return those that were made. Only its children are in the pid
    one."""
    if libc.unshare(_NEW_HOST) < 0:  # no rights here: take them in a user namespace, where that is allowed
        uid, gid = os.geteuid(), os.getegid()
        if libc.unshare(_NEW_USER) == 0:
            _write("/proc/self/setgroups", "deny")
            _write("/proc/self/uid_map", f"{uid} {uid} 1")
            _write("/proc/self/gid_map", f"{gid} {gid} 1")
    return {name for name, flag in NAMESPACES.items() if name in wanted and libc.unshare(flag) == 0}


def die_with_parent() -> None:
    """Has the kernel kill this process when its parent ends."""
    check(libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")


def library_paths() -> dict[str, str]:
    """List what every answer may read, the standard library and system libraries: each path and where it really
    lies."""
    library = [*_SYSTEM, *sys.path, os.path.join(sys.base_prefix, "lib")]
    return {path: os.path.realpath(path) for path in library if os.path.exists(path)}


def outermost(paths: Iterable[str]) -> list[str]:
    """Keep the paths that lie in no other of them."""
    paths = list(dict.fromkeys(paths))
    return [path for path in paths if not any(path.startswith(other + "/") for other in paths)]


def in_root(package: str) -> str:
    """Where the tree that `build_root` makes shows a package."""
    return os.path.join("/packages", os.path.basename(package))


def build_root(library: dict[str, str], hidden: list[str], packages: list[str], disk_bytes: int) -> None:
    """Make `library` the whole file tree, read-only, with the folders `hidden` empty and `packages` added.

    Needs the mount namespace. The new root is a file system in memory; what may be read is bound into it.
    Raises OSError.
    """
    if any(path.startswith(SCRATCH + "/") for path in library):
        raise OSError(f"the Python library lies in {SCRATCH}, which is to be empty")
    sources = {path: path for path in [*outermost(library.values()), *_DEVICES]}
    sources |= {in_root(path): os.path.realpath(path) for path in packages}
    check(libc.mount(None, b"/", None, _REC | _PRIVATE, None), "mount private")
    check(libc.mount(b"tmpfs", b"/tmp", b"tmpfs", _NOSUID, b"mode=755,size=4m"), "mount root")
    os.chdir("/tmp")
    os.mkdir("old")
    check(libc.pivot_root(b".", b"old"), "pivot_root")
    os.chdir("/")
    os.mkdir(SCRATCH)
    for path, source in sources.items():
        _bind(source, path)
    for path, source in library.items():
        if not os.path.lexists(path):  # a link, such as /lib to /usr/lib
            os.makedirs(os.path.dirname(path), exist_ok=True)
            os.symlink(source, path)
    covered = [path for path in hidden if os.path.isdir(path)]
    for path in covered:
        check(libc.mount(b"tmpfs", path.encode(), b"tmpfs", _NOSUID | _NODEV, b"mode=755,size=1m"), "mount hide")
    check(libc.umount2(b"/old", _DETACH), "umount old")
    os.rmdir("/old")
    for path in ["/", *covered]:
        _protect(path, _RDONLY | _NOSUID | _NODEV, recursive=False)
    _mount_scratch(disk_bytes)


def scratch_state() -> tuple[object, ...]:
    """Describe what a test could have changed at SCRATCH: any file made there, also one removed again, changes a
    time."""
    status = os.stat(SCRATCH)
    times = (status.st_atime_ns, status.st_mtime_ns, status.st_ctime_ns)
    rights = (status.st_dev, status.st_mode, status.st_uid, status.st_gid, status.st_size)
    return *times, *rights, *os.listdir(SCRATCH), *os.listxattr(SCRATCH)


def fresh_scratch(disk_bytes: int) -> None:
    """Put an empty file system in memory at SCRATCH, in place of the last one. Raises OSError."""
    check(libc.umount2(SCRATCH.encode(), _DETACH), "umount scratch")
    _mount_scratch(disk_bytes)


def landlock_rules(
    active: set[str], library: dict[str, str], hidden: list[str], packages: list[str]
) -> list[tuple[str, int]]:
    """List what Landlock allows: in a tree of our own all is readable and /tmp writable; else only the library, to
    read."""
    if "mount" in active:
        return [("/", landlock.READ), (SCRATCH, landlock.WRITE), ("/dev/null", landlock.WRITE_FILE)]
    shown = [part for path in outermost(library.values()) for part in _without(path, hidden)] + packages
    return [(path, landlock.READ) for path in shown] + [("/dev/null", landlock.WRITE_FILE)]


def own_uid() -> int:
    """Choose a user id that no other worker has: counted limits (threads) are then the worker's own."""
    return 0x60000000 + os.getpid()


class Confinement:
    """Everything `apply` needs, made ready before the fork."""

    def __init__(self, active: set[str], uid: int, rules: list[tuple[str, int]], limits: dict[str, int]):
        self.active = active
        self.uid = uid
        self.rules = rules
        self.limits = limits
        self.filter = seccomp.program(changes="mount" in active) if "seccomp" in active else b""
        self.rule_set = -1
        if "landlock" in active:
            self.make_rule_set()

    def make_rule_set(self) -> None:
        """Make the Landlock rules anew, as is needed when SCRATCH is another file system than before."""
        if "landlock" in self.active:
            if self.rule_set >= 0:
                os.close(self.rule_set)
            self.rule_set = landlock.ruleset(libc, self.rules)

    def apply(self) -> None:
        """Locks this process up, in the order in which no step takes away what the next one needs. Raises OSError."""
        if "mount" in self.active:
            os.chdir(SCRATCH)
        if "pid" in self.active:
            os.setsid()  # else it stays in the worker's group, which is killed as a whole
        if "ipc" in self.active and "seccomp" not in self.active:
            check(libc.unshare(NAMESPACES["ipc"]), "unshare")  # one for each test: shared memory outlives a process
        if "limits" in self.active:
            set_limits(self.limits, shared_uid="uid" not in self.active)
        if "uid" in self.active:
            os.setgroups([])
            os.setresgid(self.uid, self.uid, self.uid)
            os.setresuid(self.uid, self.uid, self.uid)
        drop_capabilities()
        if "no_new_privs" in self.active:
            check(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
        if "landlock" in self.active:
            landlock.restrict(libc, self.rule_set)
            os.close(self.rule_set)
        if "seccomp" in self.active:
            seccomp.install(libc, self.filter)


def set_limits(limits: dict[str, int], shared_uid: bool) -> None:
    """Set hard limits that nobody can raise again. Raises OSError."""
    threads = limits["threads"]
    if shared_uid:  # the kernel counts all threads of the user
        threads += _threads_of_user()
    for kind, most in (
        (resource.RLIMIT_CPU, limits["cpu_seconds"]),
        (resource.RLIMIT_AS, limits["memory_bytes"]),
        (resource.RLIMIT_NPROC, threads),
        (resource.RLIMIT_FSIZE, limits["disk_bytes"]),
        (resource.RLIMIT_NOFILE, MAX_DESCRIPTORS),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
    ):
        hard = resource.getrlimit(kind)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (most, most))


def drop_capabilities() -> None:
    """Drop every right that a process of root, or of a user namespace's first user, has. Raises OSError."""
    header = struct.pack("<Ii", 0x20080522, 0)
    check(libc.capset(header, bytes(24)), "capset")
    check(libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0), "prctl")


def _threads_of_user() -> int:
    """How many threads the user of this process has now, as far as /proc tells."""
    count, uid = 0, os.getuid()
    for name in os.listdir("/proc") if os.path.isdir("/proc") else ():
        try:
            if name.isdigit() and os.stat(f"/proc/{name}").st_uid == uid:
                count += len(os.listdir(f"/proc/{name}/task"))
        except OSError:  # ended meanwhile
            continue
    return count


def _mount_scratch(disk_bytes: int) -> None:
    options = f"mode=1777,size={disk_bytes},nr_inodes=1024".encode()
    flags = _NOSUID | _NODEV | _NOATIME
    check(libc.mount(b"tmpfs", SCRATCH.encode(), b"tmpfs", flags, options), "mount scratch")


def _bind(source: str, path: str) -> None:
    """Show /old/source at /path, read-only with all that is mounted below it."""
    source = "/old" + source
    if os.path.isdir(source):
        os.makedirs(path, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDONLY, 0o644))
    check(libc.mount(source.encode(), path.encode(), None, _BIND | _REC, None), f"bind {path}")
    _protect(path, _NOSUID if path in _DEVICES else _RDONLY | _NOSUID | _NODEV, recursive=True)


def _protect(path: str, flags: int, recursive: bool) -> None:
    attributes = struct.pack("<4Q", flags, 0, 0, 0)
    depth, size = _AT_RECURSIVE if recursive else 0, ctypes.c_size_t(len(attributes))
    check(libc.syscall(_MOUNT_SETATTR, _AT_FDCWD, path.encode(), depth, attributes, size), f"protect {path}")


def _without(path: str, hidden: list[str]) -> list[str]:
    """`path`, or, if something hidden lies in it, its entries without that."""
    if path in hidden:
        return []
    if not any(each.startswith(path + "/") for each in hidden):
        return [path]
    return [part for entry in os.scandir(path) for part in _without(entry.path, hidden)]


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)
