"""The system-call filter of a test: what ordinary Python functions never need is refused with EPERM.

A deny list, because interpreters and C extensions differ in what they call. It closes the doors that the other layers
leave ajar: starting processes (threads are allowed), signals to others, sockets, memory outside the address-space
limit, objects of the kernel that would outlive the test, and the parts of the kernel with a history of bugs.
"""

import ctypes
import errno
import platform
import struct
import sys

# name: (number on x86_64, number on aarch64); None where the machine has no such call
DENIED = {
    # processes and signals
    "fork": (57, None),
    "vfork": (58, None),
    "execve": (59, 221),
    "execveat": (322, 281),
    "kill": (62, 129),
    "tkill": (200, 130),
    "tgkill": (234, 131),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "pidfd_send_signal": (424, 424),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    "setpgid": (109, 154),
    "setsid": (112, 157),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    "process_madvise": (440, 440),
    "process_mrelease": (448, 448),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
    "setpriority": (141, 140),
    "ioprio_set": (251, 30),
    # network (a pair of connected sockets is allowed: asyncio wants one), and rings that would go round this filter
    "socket": (41, 198),
    "connect": (42, 203),
    "bind": (49, 200),
    "listen": (50, 201),
    "accept": (43, 202),
    "accept4": (288, 242),
    "sendmsg": (46, 211),
    "sendmmsg": (307, 269),
    "io_setup": (206, 0),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    # memory and state outside the limits of the process
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "semget": (64, 190),
    "msgget": (68, 186),
    "mq_open": (240, 180),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    # mounts, namespaces, roots
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "unshare": (272, 97),
    "setns": (308, 268),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "quotactl": (179, 60),
    # the machine
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "fanotify_init": (300, 262),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "reboot": (169, 142),
    "syslog": (103, 116),
    "acct": (163, 89),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "clock_adjtime": (305, 266),
    "adjtimex": (159, 171),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "personality": (135, 92),
    "modify_ldt": (154, None),
    "iopl": (172, None),
    "ioperm": (173, None),
}
# Landlock does not ask for these: refused as well where a test sees the machine's own file tree.
CHANGES = {
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "chown": (92, None),
    "fchown": (93, 55),
    "lchown": (94, None),
    "fchownat": (260, 54),
    "utime": (132, None),
    "utimes": (235, None),
    "futimesat": (261, None),
    "utimensat": (280, 88),
    "truncate": (76, 45),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
    "setxattrat": (463, 463),
    "removexattrat": (466, 466),
    "file_setattr": (469, 469),
}
# name: (numbers, argument, None to refuse whatever is not 0 or else the values that are refused)
DENIED_WITH = {
    "prlimit64 of another process": ((302, 261), 0, None),
    "sched_setaffinity of another process": ((203, 122), 0, None),
    "sched_setparam of another process": ((142, 118), 0, None),
    "sched_setscheduler of another process": ((144, 119), 0, None),
    "sched_setattr of another process": ((314, 274), 0, None),
    "sendto with an address": ((44, 206), 4, None),
    "fcntl: a signal to another process": ((72, 25), 1, (8, 10, 15)),  # F_SETOWN, F_SETSIG, F_SETOWN_EX
    "ioctl: a signal to another process": ((16, 29), 1, (0x8901, 0x8902)),  # FIOSETOWN, SIOCSPGRP
}
CLONE = (56, 220)  # allowed for threads only
CLONE3 = (435, 435)  # its flags lie in memory, out of a filter's sight: "not implemented" makes libc use clone
ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column above, AUDIT_ARCH
X32_BIT = 0x40000000  # the second table of numbers of x86_64
CLONE_THREAD = 0x00010000

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # BPF instructions
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data (eight bytes each, low half first)
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_PR_SET_SECCOMP, _MODE_FILTER = 22, 2


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p)]


def program(changes: bool) -> bytes:
    """Write the filter for this machine, as BPF instructions of eight bytes. Raises OSError where there is none.

    `changes` says whether owner, rights, times and attributes of files may be changed.
    """
    if platform.machine() not in ARCHITECTURES or sys.byteorder != "little":
        raise OSError(errno.ENOSYS, f"no system-call table for {platform.machine()}")
    column, audit = ARCHITECTURES[platform.machine()]
    refuse = (_RETURN, 0, 0, _ERRNO | errno.EPERM)
    lines = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 1, 0, audit),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
        (_AT_LEAST, 0, 1, X32_BIT),
        refuse,
    ]
    for numbers in (*DENIED.values(), *(() if changes else CHANGES.values())):
        if numbers[column] is not None:
            lines += [(_EQUAL, 0, 1, numbers[column]), refuse]
    for numbers, argument, values in DENIED_WITH.values():
        low = _ARGUMENTS + 8 * argument
        if values is None:
            tests = [line for half in (low, low + 4) for line in ((_LOAD, 0, 0, half), (_EQUAL, 1, 0, 0), refuse)]
        else:
            tests = [(_LOAD, 0, 0, low)] + [line for value in values for line in ((_EQUAL, 0, 1, value), refuse)]
        lines += [(_EQUAL, 0, len(tests) + 1, numbers[column]), *tests, (_RETURN, 0, 0, _ALLOW)]
    lines += [
        (_EQUAL, 0, 1, CLONE3[column]),
        (_RETURN, 0, 0, _ERRNO | errno.ENOSYS),
        (_EQUAL, 0, 3, CLONE[column]),
        (_LOAD, 0, 0, _ARGUMENTS),
        (_ANY_BIT, 1, 0, CLONE_THREAD),
        refuse,
        (_RETURN, 0, 0, _ALLOW),
    ]
    return b"".join(struct.pack("<HBBI", *line) for line in lines)


def install(libc: ctypes.CDLL, instructions: bytes) -> None:
    """Put the filter on the calling thread and all it starts, for good. Needs no_new_privs. Raises OSError."""
    filter_program = _Program(len(instructions) // 8, instructions)
    if libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.addressof(filter_program), 0, 0):
        raise OSError(ctypes.get_errno(), "seccomp")
