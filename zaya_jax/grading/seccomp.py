"""System calls that are refused, as seccomp filters.

`program()` is for graded programs: calls that none needs and that kernels are attacked through. A second wall: what
they would reach is out of reach by namespaces and missing privileges already. `computing()` is for a function that may
read and compute, and is the only wall there. Both are lists of refusals, not of permissions, so that they do not break
with the next version of Python or libc.
"""

from __future__ import annotations

import errno
import platform
import struct
import sys

# name: (x86_64, aarch64), of the kernel's tables arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic.
REFUSED = {
    # new namespaces, where a program would have privileges again
    "unshare": (272, 97),
    "setns": (308, 268),
    # mounts
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    # other processes
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    "pidfd_getfd": (438, 438),
    # the machine
    "reboot": (169, 142),
    "iopl": (172, None),
    "ioperm": (173, None),
    "vhangup": (153, 58),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "settimeofday": (164, 170),
    "adjtimex": (159, 171),
    "clock_settime": (227, 112),
    "clock_adjtime": (305, 266),
    "acct": (163, 89),
    "syslog": (103, 116),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    # large and often broken parts of the kernel
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "fanotify_init": (300, 262),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    # memory that no limit of a process counts
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
}
# Whatever changes something that is not the process's own. None: that machine has no such call.
CHANGING = {
    # programs and processes
    "fork": (57, None),
    "vfork": (58, None),
    "execve": (59, 221),
    "execveat": (322, 281),
    "kill": (62, 129),
    "tkill": (200, 130),
    "tgkill": (234, 131),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "pidfd_open": (434, 434),
    "pidfd_send_signal": (424, 424),
    "setpgid": (109, 154),
    "setsid": (112, 157),
    "setpriority": (141, 140),
    "ioprio_set": (251, 30),
    "sched_setaffinity": (203, 122),
    "sched_setscheduler": (144, 119),
    "sched_setparam": (142, 118),
    "sched_setattr": (314, 274),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
    "process_madvise": (440, 440),
    "process_mrelease": (448, 448),
    # sockets, queues, memory and semaphores of other processes
    "socket": (41, 198),
    "socketpair": (53, 199),
    "mq_open": (240, 180),
    "mq_unlink": (241, 181),
    "shmat": (30, 196),
    "shmctl": (31, 195),
    "semop": (65, 193),
    "semtimedop": (220, 192),
    "semctl": (66, 191),
    "msgsnd": (69, 189),
    "msgrcv": (70, 188),
    "msgctl": (71, 187),
    # files
    "creat": (85, None),
    "unlink": (87, None),
    "unlinkat": (263, 35),
    "rename": (82, None),
    "renameat": (264, 38),
    "renameat2": (316, 276),
    "mkdir": (83, None),
    "mkdirat": (258, 34),
    "rmdir": (84, None),
    "link": (86, None),
    "linkat": (265, 37),
    "symlink": (88, None),
    "symlinkat": (266, 36),
    "mknod": (133, None),
    "mknodat": (259, 33),
    "truncate": (76, 45),
    "ftruncate": (77, 46),
    "fallocate": (285, 47),
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
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
    "setxattrat": (463, 463),
    "removexattrat": (466, 466),
    "file_setattr": (469, 469),
    "flock": (73, 32),  # others wait for it
}
_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
_CLONE, _CLONE3, _SOCKET = (56, 220), (435, 435), (41, 198)
_OPEN, _OPENAT, _OPENAT2, _PRLIMIT = (2, None), (257, 56), (437, 437), (302, 261)
_WRITING = 0o1103  # O_WRONLY, O_RDWR, O_CREAT, O_TRUNC
_THREAD = 0x10000  # CLONE_THREAD: no new process
# F_SETOWN, F_SETSIG, F_SETOWN_EX, F_SETLEASE: descriptors that signal other processes, or let them wait.
_FCNTL, _DISTURBING = (72, 25), (8, 10, 15, 1024)
# TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX: others change attributes of files open for reading.
_IOCTL, _HARMLESS = (16, 29), (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)
_NEW_NAMESPACES = 0x7E020000  # CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET
_X32 = 0x40000000  # the same calls under other numbers
_FAMILIES = (1, 2, 10)  # unix, inet, inet6: vsock, netlink and packet sockets are not all bound to a network namespace

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT, _ARGUMENT = 0, 4, 16, 8  # offsets in struct seccomp_data, and a size


def _op(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)


def _fail(error: int) -> bytes:
    return _op(_RETURN, _ERRNO | error)


_ALLOWED = _op(_RETURN, _ALLOW)


def program(machine: str | None = None) -> bytes:
    """Returns the filter as an array of `struct sock_filter`; empty on machines whose call numbers are not known here.

    Refused calls fail with EPERM, as they would without privileges; clone3 with ENOSYS, so that libc takes clone, whose
    flags a filter can read.
    """
    column, architecture = _MACHINES.get(machine or platform.machine(), (None, None))
    if column is None:
        return b""
    filters = _begun(column, architecture) + _refusals(REFUSED, column)
    filters += _by_argument(_CLONE[column], 0, (_op(_ANY_BIT, _NEW_NAMESPACES, 0, 1), _fail(errno.EPERM), _ALLOWED))
    families = _one_of(_FAMILIES, _ALLOWED, _fail(errno.EAFNOSUPPORT))
    filters += _by_argument(_SOCKET[column], 0, families)
    return b"".join([*filters, _ALLOWED])


def computing(machine: str | None = None) -> bytes:
    """Returns the filter of a process that may read files, compute and write to what is open, in threads of its own.

    Beyond what `program` refuses: sockets, programs and processes, signals to any, files that are opened for writing,
    and whatever changes files or other processes. Empty on other systems than Linux, and on machines whose call numbers
    are not known here.
    """
    column, architecture = _MACHINES.get(machine or platform.machine(), (None, None))
    if column is None or (machine is None and sys.platform != "linux"):
        return b""
    filters = _begun(column, architecture) + _refusals(REFUSED | CHANGING, column)
    filters += [_op(_EQUAL, _OPENAT2[column], 0, 1), _fail(errno.ENOSYS)]  # its flags lie where no filter can read
    for call, place in ((_OPEN, 1), (_OPENAT, 2)):
        filters += _by_argument(call[column], place, (_op(_ANY_BIT, _WRITING, 0, 1), _fail(errno.EPERM), _ALLOWED))
    thread = (_op(_ANY_BIT, _NEW_NAMESPACES, 1, 0), _op(_ANY_BIT, _THREAD, 1, 0), _fail(errno.EPERM), _ALLOWED)
    filters += _by_argument(_CLONE[column], 0, thread)
    filters += _by_argument(_FCNTL[column], 1, _one_of(_DISTURBING, _fail(errno.EPERM), _ALLOWED))
    filters += _by_argument(_IOCTL[column], 1, _one_of(_HARMLESS, _ALLOWED, _fail(errno.EPERM)))
    filters += _by_argument(_PRLIMIT[column], 0, _one_of((0,), _ALLOWED, _fail(errno.EPERM)))  # its own, not others'
    return b"".join([*filters, _ALLOWED])


def _begun(column: int, architecture: int) -> list[bytes]:
    """Behind these lines the accumulator holds the number of a call of this very architecture."""
    x32 = (_op(_AT_LEAST, _X32, 0, 1), _fail(errno.ENOSYS)) if column == 0 else ()
    return [
        _op(_LOAD, _ARCHITECTURE),
        _op(_EQUAL, architecture, 1, 0),
        _op(_RETURN, _KILL),
        _op(_LOAD, _NUMBER),
        *x32,
    ]


def _refusals(calls: dict[str, tuple[int | None, int | None]], column: int) -> list[bytes]:
    filters = []
    for numbers in calls.values():
        if numbers[column] is not None:
            filters += [_op(_EQUAL, numbers[column], 0, 1), _fail(errno.EPERM)]
    return [*filters, _op(_EQUAL, _CLONE3[column], 0, 1), _fail(errno.ENOSYS)]


def _one_of(values: tuple[int, ...], then: bytes, otherwise: bytes) -> tuple[bytes, ...]:
    """A verdict on whether the accumulator holds one of the values."""
    asked = [_op(_EQUAL, value, len(values) - place) for place, value in enumerate(values)]
    return (*asked, otherwise, then)


def _by_argument(number: int | None, place: int, verdict: tuple[bytes, ...]) -> list[bytes]:
    """`verdict` decides on the call of this number, with its argument (the lower half of it) in the accumulator."""
    if number is None:
        return []
    return [_op(_EQUAL, number, 0, 1 + len(verdict)), _op(_LOAD, _FIRST_ARGUMENT + _ARGUMENT * place), *verdict]
