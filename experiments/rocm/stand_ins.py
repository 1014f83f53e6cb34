"""Stand-ins for the ROCm libraries, with which XLA's compiler for ROCm loads on a machine that has none of them.

They only let the compiler be loaded. **Nothing can run with them**: each of their functions does nothing and answers
"no device". They are made from what the wheel itself asks for, the names and versions in its table of undefined
symbols, and hold no code of ROCm. A process has to be started with them in LD_LIBRARY_PATH: `restart`.

Whatever a compilation would ask a device or a library is therefore not answered: no autotuning, no choice of a
library's algorithm.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from typing import NamedTuple

from zaya_jax.errors import mistake

HIP = "libamdhip64.so.7"  # every object of the wheels needs it: names without a version are put there
TOOLS = ("gcc", "readelf", "nm")
_LIBRARY = re.compile(r"NEEDED.*\[(lib(?:amdhip|hip|hsa|MIOpen|rccl|roc)[^\]]*)\]")
_ROCM = re.compile(r"_{0,2}(hip|hsa|miopen|nccl|rccl|roc|rsmi)|_ZN?K?\d+(hip|roc)")
_TEXT = re.compile(r"(error|status|version)_?(string|name)$", re.IGNORECASE)


class Symbol(NamedTuple):
    """A function that an object wants of somebody; `version` is empty where it does not say which."""

    name: str
    version: str


def undefined(listing: str) -> set[Symbol]:
    """ROCm's symbols in what `nm -D --undefined-only` prints of an object."""
    words = (line.split()[-1].partition("@") for line in listing.splitlines() if line.strip())
    return {Symbol(name, version.lstrip("@")) for name, _, version in words if _ROCM.match(name)}


def needed(dynamic: str) -> set[str]:
    """ROCm's libraries in what `readelf -dW` prints of an object."""
    return set(_LIBRARY.findall(dynamic))


def version_files(versions: str) -> dict[str, str]:
    """Version -> the library that it belongs to, in what `readelf -VW` prints of an object."""
    found, library = {}, ""
    for line in versions.splitlines():
        if file := re.search(r"File: (\S+)", line):
            library = file[1]
        elif name := re.search(r"Name: (\S+)\s+Flags", line):
            found[name[1]] = library
    return found


def source(names: Iterable[str]) -> str:
    """C for functions of these names. Numbers of devices are 0, everything else is hipErrorNoDevice, 100."""
    return "\n".join(['static const char text[] = "stand-in";', "static char nothing[4096];", *map(_function, names)])


def _function(name: str) -> str:
    if _TEXT.search(name) or name == "rsmi_status_string":
        return f"const char *{name}(void) {{ return text; }}"
    if name.startswith("__hipRegisterFatBinary"):  # called when an object is loaded, which then must go on
        return f"void *{name}(void) {{ return nothing; }}"
    if name.startswith(("__hip", "rocprofiler")):
        return f"long {name}(void) {{ return 0; }}"
    if name == "hipGetDeviceCount":
        return f"int {name}(int *count) {{ if (count) *count = 0; return 100; }}"
    if name in ("hipRuntimeGetVersion", "hipDriverGetVersion"):  # 7.2: what the wheels were built with
        return f"int {name}(int *version) {{ if (version) *version = 70200000; return 0; }}"
    return f"long {name}(void) {{ return 100; }}"


def exports(symbols: Iterable[Symbol], files: dict[str, str], library: str) -> dict[str, list[str]]:
    """Version -> names that a library has to have; version "" for HIP's without one."""
    found: dict[str, set[str]] = {}
    versioned = {name for name, version in symbols if version}
    for name, version in symbols:
        home = files.get(version, HIP)
        if home == library and (version or name not in versioned):
            found.setdefault(version, set()).add(name)
    return {version: sorted(names) for version, names in sorted(found.items())}


def version_script(exported: dict[str, list[str]]) -> str:
    """The linker's list of what belongs to which version."""
    nodes = {version: names for version, names in exported.items() if version}
    return "\n".join(f"{version} {{ global: {'; '.join(names)}; }};" for version, names in nodes.items())


def restart() -> None:
    """Starts the command once more, under the same process id, with the stand-ins, unless it has them already.

    Raises:
        UserError: the wheels or a tool are missing.
    """
    directory = build()
    paths = os.environ.get("LD_LIBRARY_PATH", "")
    if str(directory) in paths.split(":"):
        return
    environment = os.environ | {
        "LD_LIBRARY_PATH": f"{directory}:{paths}".rstrip(":"),
        "JAX_PLATFORMS": "cpu",
        "TF_CPP_MIN_LOG_LEVEL": os.environ.get("TF_CPP_MIN_LOG_LEVEL", "3"),
    }
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def plugin() -> pathlib.Path:
    """The compiler's library in the wheel."""
    found = importlib.util.find_spec("jax_plugins")
    places = list(found.submodule_search_locations or []) if found else []
    files = [path / "xla_rocm7/xla_rocm_plugin.so" for path in map(pathlib.Path, places)]
    for file in files:
        if file.exists():
            return file
    raise mistake("XLA:ROCm is not installed", expected="jax-rocm7-pjrt", fix="`make rocm-aot` sets up an environment")


def build(cache: pathlib.Path = pathlib.Path(".cache/rocm")) -> pathlib.Path:
    """The directory of the stand-ins for the installed wheels, made if it is not there yet."""
    main = plugin()
    directory = cache.resolve() / importlib.metadata.version("jax-rocm7-pjrt")
    if directory.exists():
        return directory
    if missing := [tool for tool in TOOLS if shutil.which(tool) is None]:
        fix = "install it (Debian: apt install gcc binutils)"
        raise mistake(
            "a tool that makes stand-ins for ROCm is missing",
            expected=", ".join(TOOLS),
            found=", ".join(missing),
            fix=fix,
        )
    objects = [main, *sorted(main.parents[2].glob("jax_rocm7_plugin/*.so"))]
    directory.parent.mkdir(parents=True, exist_ok=True)
    beside = pathlib.Path(tempfile.mkdtemp(dir=directory.parent))
    try:
        _make(objects, beside)
        beside.rename(directory)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return directory


def _make(objects: list[pathlib.Path], directory: pathlib.Path) -> None:
    symbols, files, libraries = set(), {}, {HIP}
    for path in objects:
        symbols |= undefined(_output("nm", "-D", "--undefined-only", path))
        libraries |= needed(_output("readelf", "-dW", path))
        files |= version_files(_output("readelf", "-VW", path))
    for library in sorted(libraries):
        exported = exports(symbols, files, library)
        code, script = directory / f"{library}.c", directory / f"{library}.map"
        code.write_text(source(sorted({name for names in exported.values() for name in names})) + "\n")
        script.write_text(version_script(exported) + "\n")
        link = [f"-Wl,-soname,{library}"] + ([f"-Wl,--version-script={script}"] if any(exported) else [])
        _output("gcc", "-shared", "-fPIC", "-O1", "-w", "-o", directory / library, code, *link)


def _output(*command: object) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode:
        raise mistake("a tool failed", where=command[0], found=done.stderr.strip()[:200])
    return done.stdout
