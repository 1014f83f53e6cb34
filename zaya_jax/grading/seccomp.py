"""The system calls that no graded program needs and that kernels are attacked through, as a seccomp filter.

A second wall: what these calls would reach is out of reach by namespaces and missing privileges already. The filter is
a list of refusals, not of permissions, so that it does not break with the next version of Python or libc.
"""

from __future__ import annotations

import errno
import platform
import struct

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
_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
_CLONE, _CLONE3, _SOCKET = (56, 220), (435, 435), (41, 198)
_NEW_NAMESPACES = 0x7E020000  # CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET
_X32 = 0x40000000  # the same calls under other numbers
_FAMILIES = (1, 2, 10)  # unix, inet, inet6: vsock, netlink and packet sockets are not all bound to a network namespace

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data


def _op(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)


def _fail(error: int) -> bytes:
    return _op(_RETURN, _ERRNO | error)


def program(machine: str | None = None) -> bytes:
    """Returns the filter as an array of `struct sock_filter`; empty on machines whose call numbers are not known here.

    Refused calls fail with EPERM, as they would without privileges; clone3 with ENOSYS, so that libc takes clone, whose
    flags a filter can read.
    """
    column, architecture = _MACHINES.get(machine or platform.machine(), (None, None))
    if column is None:
        return b""
    filters = [
        _op(_LOAD, _ARCHITECTURE),
        _op(_EQUAL, architecture, 1, 0),
        _op(_RETURN, _KILL),
        _op(_LOAD, _NUMBER),
        *((_op(_AT_LEAST, _X32, 0, 1), _fail(errno.ENOSYS)) if column == 0 else ()),
    ]
    for numbers in REFUSED.values():
        filters += [_op(_EQUAL, numbers[column], 0, 1), _fail(errno.EPERM)]
    filters += [_op(_EQUAL, _CLONE3[column], 0, 1), _fail(errno.ENOSYS)]
    filters += [
        _op(_EQUAL, _CLONE[column], 0, 4),
        _op(_LOAD, _FIRST_ARGUMENT),
        _op(_ANY_BIT, _NEW_NAMESPACES, 0, 1),
        _fail(errno.EPERM),
        _op(_RETURN, _ALLOW),
    ]
    filters += [_op(_EQUAL, _SOCKET[column], 0, 3 + len(_FAMILIES)), _op(_LOAD, _FIRST_ARGUMENT)]
    filters += [_op(_EQUAL, family, len(_FAMILIES) - i, 0) for i, family in enumerate(_FAMILIES)]
    filters += [_fail(errno.EAFNOSUPPORT), _op(_RETURN, _ALLOW)]
    return b"".join([*filters, _op(_RETURN, _ALLOW)])
