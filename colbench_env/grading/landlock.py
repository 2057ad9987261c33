"""The Landlock layer: which files a test may open at all, whoever owns them, and no TCP and no signals outwards."""

import ctypes
import os
import struct
from collections.abc import Iterable

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same numbers on every machine
_VERSION = 1
_PATH_BENEATH = 1

_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
READ = _READ_FILE | _READ_DIR
WRITE_FILE = _READ_FILE | 1 << 1
# read, write, remove, make directories, files, fifos and links; no sockets and no devices
WRITE = READ | sum(1 << bit for bit in (1, 4, 5, 7, 8, 10, 12))
_FILE_ONLY = _READ_FILE | 1 << 1 | 1 << 14
_REFER, _TRUNCATE = 1 << 13, 1 << 14
_FILESYSTEM = ((1, (1 << 13) - 1), (2, _REFER), (3, _TRUNCATE), (5, 1 << 15))  # rights known since which version
_TCP_SINCE, _TCP = 4, 0b11  # bind, connect
_SCOPE_SINCE, _SCOPE = 6, 0b11  # abstract sockets, signals


def version(libc: ctypes.CDLL) -> int:
    """Return the kernel's Landlock version. Raises OSError where there is none."""
    return _check(libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION))


def ruleset(libc: ctypes.CDLL, rules: Iterable[tuple[str, int]]) -> int:
    """Make a rule set that allows nothing but `(path, rights)` and what lies beneath. Returns its descriptor. Raises
    OSError."""
    known = version(libc)
    handled = sum(rights for since, rights in _FILESYSTEM if known >= since)
    words = [handled]
    if known >= _TCP_SINCE:
        words.append(_TCP)
    if known >= _SCOPE_SINCE:
        words.append(_SCOPE)
    attributes = struct.pack(f"<{len(words)}Q", *words)
    rule_set = _check(libc.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0))
    for path, rights in rules:
        if rights & 1 << 1:
            rights |= _REFER | _TRUNCATE
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        if not os.path.isdir(path):
            rights &= _FILE_ONLY
        rule = struct.pack("<Qi", rights & handled, place)
        _check(libc.syscall(_ADD_RULE, rule_set, _PATH_BENEATH, rule, 0))
        os.close(place)
    return rule_set


def restrict(libc: ctypes.CDLL, rule_set: int) -> None:
    """Binds this process to the rule set for good. Needs no_new_privs. Raises OSError."""
    _check(libc.syscall(_RESTRICT_SELF, rule_set, 0))


def _check(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), "landlock")
    return result
