"""Programs that mean harm. Each prints only what it got done; HOST in a text is the folder outside of the sandbox.

`CONTAINED` is a table: name -> (program, what may come of it). A program that gets through prints ESCAPED.
"""

import textwrap

# A program proves its escape by printing; anything that fails is what we want.
HEADER = """
import os, sys, time, signal, socket, ctypes, threading, subprocess, errno
HOST, PORT, PARENT = {host!r}, {port}, {parent}
MARK = {mark!r}
libc = ctypes.CDLL(None, use_errno=True)
def attempt(action, *arguments):
    try:
        result = action(*arguments)
    except (OSError, ValueError, MemoryError, AttributeError, ImportError) as error:
        return None
    return result
def escaped(what):
    print('ESCAPED', what, flush=True)
"""

ANY = ("ok", "error", "timeout", "memory", "output", "killed")

CONTAINED: dict[str, tuple[tuple[str, ...], str]] = {}


def hostile(name: str, body: str, *statuses: str) -> None:
    assert name not in CONTAINED
    CONTAINED[name] = (statuses or ANY, textwrap.dedent(body))


# ---- using up the machine

hostile("fork bomb", "while True: attempt(os.fork)", "timeout", "memory")
hostile(
    "fork bomb whose first process leaves",
    """
    while True:
        if attempt(os.fork): os._exit(0)
    """,
)
hostile(
    "thread bomb",
    """
    count = 0
    try:
        while True:
            threading.Thread(target=time.sleep, args=(100,), daemon=True).start(); count += 1
            if count > 500: escaped('threads'); break
    except RuntimeError:
        os._exit(3)
    """,
    "error",
)
hostile("memory at once", "x = bytearray(1 << 34)", "memory")
hostile(
    "memory bit by bit",
    """
    x = []
    while True: x.append(bytearray(1 << 20))
    """,
    "memory",
)
hostile(
    "memory in many processes",
    """
    for _ in range(8):
        if not attempt(os.fork): break
    x = b'x' * (150 << 20)
    time.sleep(60)
    """,
    "memory",
)
hostile("a list that never ends", "x = list(iter(int, 1))", "memory", "timeout")
hostile(
    "files in memory that no limit counts",
    """
    for _ in range(100):
        fd = attempt(os.memfd_create, 'x')
        if fd is not None: escaped('memfd')
    if libc.shmget(0, 1 << 20, 0o1600) >= 0: escaped('shmget')
    """,
    "ok",
)
hostile("locked memory", "if libc.mlockall(3) == 0: escaped('mlockall')", "ok")
hostile("flood on standard output", "while True: sys.stdout.write('x' * 65536)", "output")
hostile("flood on standard error", "while True: sys.stderr.write('x' * 65536)", "output")
hostile(
    "flood from a child",
    """
    if not os.fork():
        while True: os.write(1, b'x' * 65536)
    time.sleep(60)
    """,
    "output",
)
hostile("infinite loop", "while True: pass", "timeout")
hostile(
    "infinite loop that ignores SIGXCPU", "signal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass", "timeout"
)
hostile("sleeping forever", "time.sleep(1e6)", "timeout")
hostile("waiting for input that is over", "sys.stdin.read()\nsignal.pause()", "timeout")
hostile(
    "ignoring every signal",
    """
    for number in range(1, 65): attempt(signal.signal, number, signal.SIG_IGN)
    while True: time.sleep(1)
    """,
    "timeout",
)
hostile("stopping itself", "os.kill(os.getpid(), signal.SIGSTOP)", "timeout")
hostile("closing its output and going on", "os.close(1); os.close(2); time.sleep(60)", "timeout")
hostile(
    "deep recursion",
    "sys.setrecursionlimit(10**9)\nf = lambda n: f(n + 1) + f(n + 2)\nf(0)",
    "memory",
    "killed",
    "error",
    "timeout",
)
hostile("a long number", "print(len(str(9 ** 9 ** 9)))", "timeout", "memory", "error")
hostile("catastrophic regex", "import re\nre.match('(a+)+$', 'a' * 60 + 'b')", "timeout")

# ---- living on

hostile(
    "daemon by double fork",
    """
    if not os.fork():
        os.setsid()
        if not os.fork():
            os.close(0); os.close(1); os.close(2)
            time.sleep(1000)
        os._exit(0)
    """,
    "ok",
)
hostile("session of its own", "os.fork() or (attempt(os.setsid), os.close(1), os.close(2), time.sleep(1000))", "ok")
hostile("child that keeps the output open", "os.fork() or time.sleep(1000)", "ok")
hostile(
    "children that ignore SIGTERM",
    """
    for _ in range(5):
        if not os.fork():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            os.setsid()
            time.sleep(1000)
    """,
    "ok",
)
hostile(
    "shell in the background",
    "subprocess.Popen(['/bin/sh', '-c', f'sleep 1000 # {MARK}'], start_new_session=True)",
    "ok",
)
hostile("becoming a shell", "os.execv('/bin/sh', ['sh', '-c', 'kill -9 -1; sleep 1000 #' + MARK])", "timeout", "killed")
hostile(
    "restarting itself",
    "os.execv(sys.executable, [sys.executable, '-I', '-S', 'main.py', MARK])",
    "timeout",
)

# ---- other processes

hostile("killing the parent by number", "attempt(os.kill, PARENT, signal.SIGKILL)", "ok")
hostile(
    "killing its own parent", "attempt(os.kill, os.getppid(), signal.SIGKILL)\ntime.sleep(0.2)\nprint('alive')", "ok"
)
hostile("killing everybody", "attempt(os.kill, -1, signal.SIGKILL)\nattempt(os.kill, -1, signal.SIGTERM)", "ok")
hostile("killing its group", "os.killpg(0, signal.SIGKILL)", "killed")
hostile("killing by every number", "for pid in range(3, 40000): attempt(os.kill, pid, signal.SIGKILL)", "ok")
hostile(
    "signals to process 1",
    "for number in (1, 2, 3, 9, 15, 19): attempt(os.kill, 1, number)\ntime.sleep(0.2)\nprint('alive')",
    "ok",
)
hostile(
    "ptrace",
    """
    for pid in (1, os.getppid(), PARENT):
        if libc.ptrace(16, pid, 0, 0) == 0: escaped(pid)
    """,
    "ok",
)
hostile(
    "memory of process 1",
    """
    for pid in ('1', PARENT):
        for name in ('mem', 'maps', 'fd/3', 'environ'):
            try: text = open(f'/proc/{pid}/{name}', 'rb').read(10)
            except OSError: continue
            if name != 'maps' and text: escaped(name)
    """,
)
hostile(
    "environment and commands of others",
    """
    for pid in filter(str.isdigit, os.listdir('/proc')):
        for name in ('environ', 'cmdline'):
            try: text = open(f'/proc/{pid}/{name}', 'rb').read()
            except OSError: continue
            if b'PLANTED' in text or b'pytest' in text: escaped(name)
    """,
    "ok",
)
hostile("a secret in the environment", "if any('PLANTED' in v for v in os.environ.values()): escaped('secret')", "ok")
hostile("descriptors left open", "print(len(os.listdir('/proc/self/fd')) <= 4 or escaped('fd'))", "ok")
hostile(
    "root by way of /proc",
    """
    for pid in ('self', '1', os.getppid(), PARENT):
        for path in (f'/proc/{pid}/root', f'/proc/{pid}/cwd'):
            if os.path.exists(path + HOST): escaped(path)
    """,
    "ok",
)
hostile("priority", "if attempt(os.nice, -10) is not None: escaped('nice')", "ok")

# ---- the network

for kind, address in (
    ("TCP", "('AF_INET', 'SOCK_STREAM', ('1.1.1.1', 53))"),
    ("UDP", "('AF_INET', 'SOCK_DGRAM', ('1.1.1.1', 53))"),
    ("the host's loopback", "('AF_INET', 'SOCK_STREAM', ('127.0.0.1', PORT))"),
    ("IPv6 loopback", "('AF_INET6', 'SOCK_STREAM', ('::1', PORT))"),
    ("a unix socket of the host", "('AF_UNIX', 'SOCK_STREAM', HOST + '/socket')"),
    ("an abstract socket of the host", "('AF_UNIX', 'SOCK_STREAM', '\\0' + MARK)"),
):
    hostile(
        f"connecting by {kind}",
        f"""
        family, kind, address = {address}
        s = socket.socket(getattr(socket, family), getattr(socket, kind))
        s.settimeout(0.5)
        try:
            s.connect(address); s.send(b'x')
        except OSError:
            pass
        else:
            escaped(address)
        """,
        "ok",
    )
hostile("name lookup", "if attempt(socket.getaddrinfo, 'pypi.org', 443): escaped('dns')", "ok")
hostile(
    "the machine's host, packets, netlink",
    "for family in (40, 17, 16, 38): attempt(socket.socket, family, 1) and escaped(family)\n"
    "attempt(socket.socket, 2, 3, 1) and escaped('raw')",
    "ok",
)
hostile("interfaces", "print([n for _, n in socket.if_nameindex() if n != 'lo'] and escaped('eth'))", "ok", "error")

# ---- the file system

hostile(
    "writing outside",
    """
    for folder in ('/', '/etc', '/usr', '/usr/bin', '/usr/lib', '/bin', '/lib', '/root', '/home', '/var', '/proc',
                   '/sys', '/dev', '/opt', '/mnt', '/run', HOST, sys.prefix, sys.prefix + '/lib'):
        if attempt(open, folder + '/zaya_escape', 'w'): escaped(folder)
    """,
    "ok",
)
hostile(
    "deleting outside",
    """
    import shutil
    for path in (HOST + '/precious.txt', '/usr/bin/env', '/etc/passwd', sys.executable):
        if attempt(lambda: (os.remove(path), 1)): escaped(path)
    shutil.rmtree(HOST, ignore_errors=True)
    shutil.rmtree('/', ignore_errors=True)
    """,
    "ok",
    "timeout",
)
hostile(
    "changing modes outside",
    "for p in ('/usr/bin/env', '/etc', sys.prefix): attempt(lambda: os.chmod(p, 0o777) or escaped(p))",
    "ok",
)
hostile(
    "reading the user's files",
    """
    for path in (HOST + '/precious.txt', '/etc/shadow', '/etc/passwd', '/root/.ssh'):
        if os.path.exists(path): escaped(path)
    """,
    "ok",
)
hostile(
    "symlinks to the outside",
    """
    os.symlink(HOST, 'out'); os.symlink('/etc', 'etc'); os.symlink('/proc/1/root', 'root')
    for name in ('out/precious.txt', 'etc/shadow', 'root' + HOST):
        if attempt(open, name) or os.path.exists(name): escaped(name)
    for name in ('out/x', 'etc/x'):
        if attempt(open, name, 'w'): escaped(name)
    """,
    "ok",
)
hostile(
    "hard link to the outside",
    """
    for path in ('/usr/bin/env', HOST + '/precious.txt', sys.executable):
        attempt(lambda: os.link(path, 'link') or escaped(path))
    """,
    "ok",
)
hostile(
    "walking up",
    """
    for depth in range(1, 10):
        path = '../' * depth
        if os.path.exists(path + HOST): escaped(path)
    fd = os.open('/', os.O_RDONLY)
    os.fchdir(fd)
    if os.path.exists('..' + HOST): escaped('..')
    """,
    "ok",
)
hostile(
    "chroot and the old way out",
    """
    os.mkdir('d')
    fd = os.open('.', os.O_RDONLY)
    if attempt(lambda: os.chroot('d') or 1): escaped('chroot')
    """,
    "ok",
)
hostile(
    "mounting",
    """
    os.mkdir('m')
    for source, kind, flags in (('tmpfs', 'tmpfs', 0), ('/', None, 4096), ('proc', 'proc', 0), (None, None, 32)):
        encode = lambda text: text.encode() if text else None
        if libc.mount(encode(source), b'm' if flags != 32 else b'/usr', encode(kind), flags, None) == 0: escaped(source)
    if libc.umount2(b'/usr', 2) == 0: escaped('umount')
    """,
    "ok",
)
hostile(
    "devices",
    """
    if attempt(lambda: os.mknod('disk', 0o60666, os.makedev(8, 0)) or 1): escaped('mknod')
    for name in ('sda', 'vda', 'mem', 'kmsg', 'port', 'fuse', 'kvm'):
        if attempt(os.open, '/dev/' + name, os.O_RDWR) is not None: escaped(name)
    """,
    "ok",
)
hostile(
    "the kernel's settings",
    """
    for path in ('/proc/sys/kernel/core_pattern', '/proc/sysrq-trigger', '/proc/self/oom_score_adj', '/sys/power/state',
                 '/sys/fs/cgroup/cgroup.procs', '/proc/sys/vm/drop_caches', '/proc/self/uid_map'):
        if attempt(os.open, path, os.O_WRONLY) is not None: escaped(path)
    """,
    "ok",
)
hostile("a big file", "f = open('big', 'wb')\nwhile True: f.write(bytes(1 << 20))", "error", "killed")
hostile(
    "a big file in shared memory",
    "f = open('/dev/shm/big', 'wb')\nwhile True: f.write(bytes(1 << 20))",
    "error",
    "killed",
)
hostile(
    "big files, one after another",
    """
    for i in range(100):
        with open(f'/tmp/{i}', 'wb') as f: f.write(bytes(4 << 20))
    escaped('400 MB')
    """,
    "error",
)
hostile("a sparse file", "open('s', 'wb').truncate(1 << 40); escaped('1 TB')", "error", "killed")
hostile(
    "a zip bomb",
    """
    import zlib
    packed = zlib.compress(bytes(1 << 20)); d = zlib.decompressobj()
    bomb = zlib.compressobj()
    data = b''.join(bomb.compress(bytes(1 << 20)) for _ in range(400)) + bomb.flush()
    zlib.decompress(data)
    """,
    "memory",
    "timeout",
)
hostile("core dump", "os.abort()", "killed")
hostile("crash of the interpreter", "ctypes.string_at(0)", "killed")

# ---- privileges

hostile(
    "becoming root",
    """
    for name in ('setuid', 'setgid', 'seteuid', 'setegid'):
        if attempt(lambda: getattr(os, name)(0) or 1): escaped(name)
    if attempt(lambda: os.setgroups([0]) or 1): escaped('setgroups')
    if os.getuid() == 0: escaped('uid')
    """,
    "ok",
)
hostile(
    "set-user-id programs",
    """
    for path in ('/usr/bin/su', '/usr/bin/passwd', '/usr/bin/mount', '/usr/bin/sudo'):
        if os.path.exists(path) and os.fork() == 0:
            os.execv(path, [path, '--help'])
    print(open('/proc/self/status').read().split('NoNewPrivs:')[1][:3].strip() == '1' or escaped('no_new_privs'))
    """,
    "ok",
)
hostile(
    "namespaces of its own",
    """
    for flag in (0x10000000, 0x20000, 0x20000000, 0x40000000):
        if libc.unshare(flag) == 0: escaped(hex(flag))
        if libc.syscall(56 if os.uname().machine == 'x86_64' else 220, flag | 17, 0, 0, 0, 0) > 0: escaped('clone')
    for name in ('user', 'mnt', 'pid'):
        fd = attempt(os.open, f'/proc/1/ns/{name}', os.O_RDONLY)
        if fd is not None and libc.setns(fd, 0) == 0: escaped('setns')
    """,
    "ok",
)
hostile(
    "capabilities",
    "print(open('/proc/self/status').read().split('CapEff:')[1].split()[0].strip('0') and escaped('cap'))",
    "ok",
)
hostile(
    "raising its limits",
    """
    import resource
    for name in ('AS', 'CPU', 'NPROC', 'FSIZE', 'NOFILE', 'CORE'):
        attempt(lambda: resource.setrlimit(getattr(resource, 'RLIMIT_' + name), (-1, -1)) or escaped(name))
    """,
    "ok",
)
hostile(
    "names of the machine",
    """
    attempt(lambda: socket.sethostname('x') or escaped('hostname'))
    if socket.gethostname() != 'sandbox': escaped('name')
    """,
    "ok",
)
hostile("the clock", "attempt(lambda: time.clock_settime(0, 0) or escaped('clock'))", "ok")
hostile(
    "io_uring, bpf, keys",
    "for n in (425, 321 if os.uname().machine == 'x86_64' else 280): libc.syscall(n, 1, 0, 0) >= 0 and escaped(n)",
    "ok",
)
hostile(
    "module planted in its directory",
    "open('random.py', 'w').write('print(\"ESCAPED planted\")')\nimport random",
    "ok",
)
hostile("os._exit", "print('begun', flush=True)\nos._exit(0)", "ok")
hostile("input closed", "os.close(0)\ntry: input()\nexcept (OSError, RuntimeError, ValueError, EOFError): pass", "ok")
