"""Runs inside of the sandbox, before the untrusted program and never next to it: makes the walls, then becomes it.

A script of its own, that imports the standard library only: `python -I -S sandbox_child.py FD`, where FD is a file with
the JSON that `sandbox.py` writes. What it reports goes to the descriptor `status`: a line `{"child-pid": N}` for the
first process of the new process namespace (as bubblewrap reports it), then `ready`, just before the program begins.
"""

import _thread
import base64
import ctypes
import json
import os
import platform
import resource
import signal
import sys

LIBC = ctypes.CDLL(None, use_errno=True)

CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC = 0x20000, 0x2000000, 0x4000000, 0x8000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_RDONLY, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 8, 1, 4096, 16384, 1 << 18
ATTR_RDONLY, ATTR_NOSUID, ATTR_NODEV = 1, 2, 4
AT_FDCWD, AT_RECURSIVE, MNT_DETACH = -100, 0x8000, 2
MOUNT_SETATTR = 442
PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38
CAPABILITY_VERSION_3 = 0x20080522
WORK = "/tmp"
DEVICES = ("null", "zero", "full", "random", "urandom")


def main() -> None:
    with open(int(sys.argv[1]), "rb") as file:
        file.seek(0)
        config = json.load(file)
    if config["isolation"] == "unshare":
        enter_namespaces(config)
    give_up_privileges(config["uid"])
    if config["isolation"] != "none":
        stay_as_first_process(config["lifeline"])
    become(config)


def call(name: str, *arguments: object) -> int:
    """A function of libc; OSError if it fails."""
    arguments = [argument.encode() if isinstance(argument, str) else argument for argument in arguments]
    result = getattr(LIBC, name)(*arguments)
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{name}: {os.strerror(error)}")
    return result


def prctl(option: int, value: int, argument: object = 0) -> None:
    call("prctl", option, ctypes.c_ulong(value), argument if argument else ctypes.c_ulong(0), ctypes.c_ulong(0), 0)


def write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


# ---- the walls of "unshare": bubblewrap has built its own when it starts this script


def enter_namespaces(config: dict) -> None:
    """Returns as the first process of new namespaces, with a root directory of its own."""
    uid, gid, root = os.getuid(), os.getgid(), config["uid"] is not None
    user = 0 if root else CLONE_NEWUSER
    others = CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWUTS | CLONE_NEWCGROUP
    call("unshare", user | others)
    if user:
        write("/proc/self/setgroups", "deny")
        write("/proc/self/uid_map", f"65534 {uid} 1")
        write("/proc/self/gid_map", f"65534 {gid} 1")
    first = os.fork()
    if first:
        os.write(config["status"], b'{"child-pid": %d}\n' % first)
        os.close(config["status"])
        os._exit(exit_code(os.waitpid(first, 0)[1]))
    call("sethostname", "sandbox", 7)
    new_root(config)


def new_root(config: dict) -> None:
    """A root of memory with the system's directories bound into it, read-only; the old one is out of reach after it."""
    call("mount", None, "/", None, MS_REC | MS_PRIVATE, None)
    # Upon /tmp, and turned round: then the old root, with what lies under its /tmp, is below the new one at /old.
    call("mount", "tmpfs", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755,size=1m,nr_inodes=1024")
    os.chdir("/tmp")
    os.mkdir("old")
    call("syscall", PIVOT_ROOT[platform.machine()], b".", b"old")
    os.chdir("/")
    for link, target in config["links"].items():
        os.symlink(target, link)
    os.mkdir(WORK)
    memory_filesystem(WORK, config["limits"])  # before the rest, which may lie below it
    for path in config["binds"]:
        bind(path)
    make_devices(config["limits"])
    os.mkdir("/proc")
    call("mount", "proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RDONLY, "subset=pid")
    call("umount2", "/old", MNT_DETACH)
    os.rmdir("/old")
    set_attributes("/", ATTR_RDONLY | ATTR_NOSUID | ATTR_NODEV, 0)


def bind(path: str, attributes: int = ATTR_RDONLY | ATTR_NOSUID | ATTR_NODEV) -> None:
    old = "/old" + path
    if os.path.isdir(old):
        os.makedirs(path, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        open(path, "w").close()
    call("mount", old, path, None, MS_BIND | MS_REC, None)
    set_attributes(path, attributes, AT_RECURSIVE)


def set_attributes(path: str, attributes: int, flags: int) -> None:
    attribute = (ctypes.c_uint64 * 4)(attributes, 0, 0, 0)
    call("syscall", MOUNT_SETATTR, AT_FDCWD, path, flags, attribute, ctypes.c_size_t(ctypes.sizeof(attribute)))


def make_devices(limits: dict) -> None:
    os.mkdir("/dev")
    for name in DEVICES:
        bind(f"/dev/{name}", attributes=ATTR_NOSUID)
    for name, target in {"fd": "", "stdin": "/0", "stdout": "/1", "stderr": "/2"}.items():
        os.symlink(f"/proc/self/fd{target}", f"/dev/{name}")
    os.mkdir("/dev/shm")
    memory_filesystem("/dev/shm", limits)


def memory_filesystem(path: str, limits: dict) -> None:
    size = f"mode=1777,size={limits['file_bytes']},nr_inodes={limits['files'] + 1}"
    call("mount", "tmpfs", path, "tmpfs", MS_NOSUID | MS_NODEV, size)


def stay_as_first_process(lifeline: int) -> None:
    """Returns in a child. The first process waits, and all others end with it; signals from inside do not reach it.

    The lifeline is a pipe whose other end only the owner of the sandbox holds: it ends when the owner does. (The signal
    that Linux sends upon a parent's death comes upon that of a thread, and is lost with a change of privileges.)
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    program = os.fork()
    if not program:
        return
    _thread.start_new_thread(lambda: (os.read(lifeline, 1), os._exit(128 + signal.SIGKILL)), ())
    while True:
        pid, status = os.wait()
        if pid == program:
            os._exit(exit_code(status))


def exit_code(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


# ---- privileges and limits, under every isolation


def give_up_privileges(uid: int | None) -> None:
    """Becomes `uid`, if one is given, without capabilities and without a way to new ones."""
    if uid is not None:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    call("capset", header, (ctypes.c_uint32 * 6)())
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    prctl(PR_SET_DUMPABLE, 0)  # nobody may read or trace the process that waits


def set_limits(limits: dict) -> None:
    cpu, memory = limits["cpu_seconds"], limits["memory_bytes"]
    stack = min(8 << 20, memory)
    for name, soft, hard in (
        ("CPU", cpu, cpu + 1),
        ("AS", memory, memory),
        ("FSIZE", limits["file_bytes"], limits["file_bytes"]),
        ("NPROC", limits["processes"] + 2, limits["processes"] + 2),  # the first process has two threads
        ("NOFILE", 256, 256),
        ("STACK", stack, memory),
        ("MEMLOCK", 0, 0),
        ("MSGQUEUE", 0, 0),
        # Not 0: that stops a file, but not a core_pattern that pipes the dump to a program outside; 1 stops both.
        ("CORE", 1, 1),
    ):
        which = getattr(resource, f"RLIMIT_{name}")
        ceiling = resource.getrlimit(which)[1]
        if ceiling != resource.RLIM_INFINITY:
            soft, hard = min(soft, ceiling), min(hard, ceiling)
        resource.setrlimit(which, (soft, hard))


def filter_calls(program: bytes) -> None:
    """Installs a seccomp filter, given as an array of `struct sock_filter` of 8 bytes."""
    if not program:
        return
    code = ctypes.create_string_buffer(program, len(program))

    class Filter(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_void_p))

    prctl(PR_SET_SECCOMP, 2, ctypes.byref(Filter(len(program) // 8, ctypes.addressof(code))))


def become(config: dict) -> None:
    """Replaces this process by the program."""
    if config["isolation"] != "none":
        os.setsid()
    os.chdir(config["cwd"])
    os.umask(0o077)
    for name, content in config["files"].items():
        if os.path.dirname(name):
            os.makedirs(os.path.dirname(name), exist_ok=True)
        with open(name, "wb") as file:
            file.write(base64.b64decode(content))
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # as for any program; Python had it ignored
    set_limits(config["limits"])
    if config["isolation"] == "none":
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    os.write(config["status"], b"ready\n")
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    filter_calls(base64.b64decode(config["filter"]))
    os.execve(config["argv"][0], config["argv"], config["environment"])


if __name__ == "__main__":
    main()
