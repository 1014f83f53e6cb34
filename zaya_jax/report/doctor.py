"""Is this machine ready? Each check gives findings: OK, or what to do.

The checks judge what they are given (versions, an environment, measured errors), so that every platform's branch is
tested on any machine; `examine` at the end collects it from this one.
"""

from __future__ import annotations

import importlib.metadata
import os
import pathlib
import re
import shlex
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence

import jax

from zaya_jax.report import probes
from zaya_jax.report.findings import Finding

Environment = Mapping[str, str]
Device = tuple[str, int | None]  # its kind, and the bytes of memory that jax may use (None: unknown)
Versions = Mapping[str, str | None]  # package -> installed version, None if it is not there

TESTED_JAX = "0.10.2"
_ACCELERATORS = ("cuda", "rocm")  # extras that only some machines want
_DEVICE_FILES = {"/dev/kfd": "rocm", "/dev/nvidiactl": "cuda"}  # what a driver makes -> the extra that uses it


def check_python(version: Sequence[int]) -> Finding:
    """Whether this Python is one that setup.py names."""
    text = f"Python {'.'.join(map(str, version[:3]))}"
    if (3, 11) <= tuple(version[:2]) <= (3, 12):
        return Finding("OK", text)
    return Finding("FAIL", f"{text} is not supported", "make a virtual environment with Python 3.11 or 3.12")


def check_packages(requirements: Iterable[str], installed: Versions) -> list[Finding]:
    """Whether the packages that the library needs are there in versions it allows.

    Args:
        requirements: as in a package's metadata, e.g. "jax<0.12,>=0.10.2"; those of extras are left out.
        installed: the versions of the packages named there.
    """
    needed = [_parse(line) for line in requirements if "extra ==" not in line]
    if not needed:
        return [Finding("WARN", "zaya_jax is not installed: versions are unchecked", "pip install -e .")]
    wrong = [_wrong_version(name, bounds, installed.get(name)) for name, bounds in needed]
    findings = [finding for finding in wrong if finding is not None]
    shown = ", ".join(f"{name} {installed[name]}" for name, _ in needed if installed.get(name))
    return findings or [Finding("OK", shown)]


def check_jax(versions: Versions) -> Finding:
    """Whether jax and jaxlib are of one version, and of the one that the tests ran with."""
    jax_version, jaxlib = versions.get("jax"), versions.get("jaxlib")
    text = f"jax {jax_version} with jaxlib {jaxlib}"
    if jax_version != jaxlib:
        return Finding("WARN", text, f"install both in one version: pip install jax=={TESTED_JAX} jaxlib=={TESTED_JAX}")
    if jax_version == TESTED_JAX:
        return Finding("OK", f"{text}, the tested one")
    advice = f"run `make test`, or take the tested one: pip install jax=={TESTED_JAX}"
    return Finding("WARN", f"{text}: tested is {TESTED_JAX}", advice)


def check_extras(requirements: Iterable[str], installed: Versions) -> list[Finding]:
    """Which optional packages are there; what is not there is no fault."""
    extras: dict[str, list[tuple[str, str]]] = {}
    for line in requirements:
        extra = re.search(r'extra == "(\w+)"', line)
        if extra and extra[1] not in _ACCELERATORS:
            extras.setdefault(extra[1], []).append(_parse(line))
    return [_extra(name, needed, installed) for name, needed in extras.items()]


def check_backend(platform: str, version: str, devices: Sequence[Device], seen: Sequence[str]) -> Finding:
    """What jax computes on, and whether it overlooks an accelerator.

    Args:
        platform: "cpu", "gpu" or "tpu".
        version: the client's own words, e.g. "rocm 70200".
        devices: all local ones.
        seen: extras whose device files exist ("rocm", "cuda").
    """
    kinds = {device: devices.count(device) for device in devices}
    listed = ", ".join(f"{count} x {kind}{_memory(size)}" for (kind, size), count in kinds.items())
    text = f"jax computes on {platform} ({version}): {listed}" if platform != version else f"jax computes on {listed}"
    if seen and platform == "cpu":
        advice = f"pip install -e '.[{seen[0]}]', and unset JAX_PLATFORMS"
        return Finding("WARN", f"{text}, but the driver of a GPU ({seen[0]}) is here", advice)
    return Finding("OK", text)


def check_rocm(environment: Environment) -> list[Finding]:
    """The settings that AMD's own JAX configurations make for MI300X, and the one against crashes.

    Sources: openxla/xla #46952 (a while loop in a command buffer crashes; ROCm 7.1, gfx950) and #40405 (ROCm 7.2.0);
    the MI300X MaxText settings of ROCm/cvs; the environment variables of HIP and ROCr.
    """
    buffers = [f for f in shlex.split(environment.get("XLA_FLAGS", "")) if f.startswith(_COMMAND_BUFFERS)]
    off = bool(buffers) and buffers[-1] == _COMMAND_BUFFERS
    crash = Finding("OK", "command buffers are off (they crash in the sampler's loop)")
    if not off:
        text = "command buffers are on: a while loop, as the sampler is, crashes with them on some ROCm versions"
        crash = Finding("WARN", text, f'export XLA_FLAGS="$XLA_FLAGS {_COMMAND_BUFFERS}" (openxla/xla issue 46952)')
    return [crash, *(_setting(environment, *setting) for setting in _ROCM_SETTINGS)]


def check_gpu_memory(environment: Environment) -> Finding:
    """The share of a GPU's memory that jax takes; it reserves 75 % unless told otherwise."""
    given = [name for name in ("XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION") if environment.get(name)]
    if len(given) > 1:
        return Finding("FAIL", f"{' and '.join(given)} are both set, which jax refuses", f"unset {given[1]}")
    if given:
        return Finding("OK", f"{given[0]} is {environment[given[0]]}")
    advice = "export XLA_CLIENT_MEM_FRACTION=0.95 (older jax: XLA_PYTHON_CLIENT_MEM_FRACTION)"
    return Finding("WARN", "jax takes 75 % of the GPU's memory", advice)


def check_product(dtype: str, error: float, rate: float) -> Finding:
    """Judges a matrix product.

    Args:
        dtype: of its operands; the result is float32.
        error: greatest difference from the float64 product, relative to the greatest value.
        rate: operations a second.
    """
    text = f"{dtype} matrix product: {_rate(rate)}, relative error {error:.1e}"
    if error < 1e-5:
        return Finding("OK", text)
    if error < 5e-3 and dtype == "float32":
        advice = "export JAX_DEFAULT_MATMUL_PRECISION=highest where digits matter (comparing with another engine)"
        return Finding("WARN", f"{text}: products are rounded as in TF32", advice)
    if error < 5e-3:
        return Finding("WARN", f"{text}: sums are rounded to {dtype}", "expect larger differences from other engines")
    return Finding("FAIL", f"{text}: wrong", "check the driver and the versions of jax, jaxlib and the plugin")


def check_loop(result: float, expected: float) -> Finding:
    """Judges a jitted while loop."""
    if result == expected:
        return Finding("OK", "a jitted while loop")
    return Finding("FAIL", f"a jitted while loop gave {result}, not {expected}", "check the driver and the plugin")


def check_sum(results: Sequence[float], expected: float) -> Finding:
    """Judges a sum over all devices: each must hold it."""
    if all(result == expected for result in results):
        return Finding("OK", f"a sum over {len(results)} devices")
    advice = "check the links between the devices (RCCL or NCCL: set NCCL_DEBUG=INFO)"
    return Finding("FAIL", f"a sum over {len(results)} devices gave {list(results)}, not {expected}", advice)


def check_kernels(operation: str, differences: Mapping[str, float | None]) -> Finding:
    """Judges the implementations of an operation.

    Args:
        operation: its name.
        differences: implementation -> greatest difference from the reference; None if there is none here.
    """
    there = {name: value for name, value in differences.items() if value is not None}
    wrong = [name for name, value in there.items() if not value < 1e-4]
    absent = [name for name, value in differences.items() if value is None]
    text = f"{operation}: {', '.join(there)}" + (f" (not here: {', '.join(absent)})" if absent else "")
    if wrong:
        text = f"{operation}: {wrong[0]} differs from the reference by {there[wrong[0]]:.1e}"
        return Finding("FAIL", text, "run `make test`, and report it")
    return Finding("OK", text)


def check_compile_cache(directory: str) -> Finding:
    """Whether compiled programs can be kept."""
    if not directory:
        return Finding(
            "WARN", "compiled programs are not kept", "set --compile_cache_dir, or every start compiles anew"
        )
    path = pathlib.Path(directory).expanduser()
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        return Finding("WARN", f"{path}: {error.strerror}; compiled programs are not kept", "set --compile_cache_dir")
    return Finding("OK", f"compiled programs are kept in {path}")


def check_host(cores: int, memory: int, available: int, bandwidth: float) -> list[Finding]:
    """The machine itself: what a CPU needs to decode ZAYA1-8B.

    Args:
        cores: that this process may use.
        memory, available: bytes of RAM, and of it what is free or can be freed.
        bandwidth: bytes a second of a copy, read and written bytes counted.
    """
    text = f"{cores} cores, {memory / 1e9:.0f} GB of memory, {available / 1e9:.0f} GB available"
    speed = Finding(
        "OK", f"memory copies at {bandwidth / 1e9:.1f} GB/s (read + written); a token of ZAYA1-8B reads 2.6 GB"
    )
    if available >= _ZAYA1_8B_BYTES:
        return [Finding("OK", text), speed]
    advice = "ZAYA1-8B (17.7 GB in bfloat16) would be read from the disk again and again: use a larger machine for it"
    return [Finding("WARN", text, advice), speed]


def examine(compile_cache_dir: str) -> Iterator[Finding]:
    """Examines this machine; findings come one by one, so that a crash of the driver shows behind which one it was.

    Args:
        compile_cache_dir: where compiled programs shall be kept; "" is nowhere.
    """
    requirements = _requirements()
    installed = {name: _version(name) for name in ("jaxlib", *(_parse(line)[0] for line in requirements))}
    yield check_python(sys.version_info)
    yield from check_packages(requirements, installed)
    yield check_jax(installed)
    yield from check_extras(requirements, installed)
    yield check_compile_cache(compile_cache_dir)
    seen = [extra for file, extra in _DEVICE_FILES.items() if os.path.exists(file)]
    if seen:
        yield check_gpu_memory(os.environ)  # before jax, which a mistake in it keeps from starting
    if "rocm" in seen:
        yield from check_rocm(os.environ)
    try:
        yield check_backend(*probes.backend(), seen)
    except RuntimeError as error:
        yield Finding("FAIL", f"jax finds no device: {error}", "check JAX_PLATFORMS, the driver and the plugin")
        return
    yield from _exercise()
    if jax.default_backend() == "cpu":
        yield from check_host(probes.cores(), *probes.memory(), probes.copy_bandwidth())


def _exercise() -> Iterator[Finding]:
    """Lets the devices compute."""
    for dtype in ("float32", "bfloat16"):
        yield check_product(dtype, *probes.product(dtype))
    yield check_loop(*probes.loop())
    if jax.local_device_count() > 1:
        yield check_sum(*probes.sum_over_devices())
    for operation in probes.OPERATIONS:
        yield check_kernels(operation, probes.kernel_differences(operation))


_COMMAND_BUFFERS = "--xla_gpu_enable_command_buffer="
_ROCM_SETTINGS = (
    ("GPU_MAX_HW_QUEUES", "2", "the hardware is fastest with two streams for kernels and two for RCCL"),
    ("HIP_FORCE_DEV_KERNARG", "1", "kernels find their arguments in device memory sooner"),
    ("HSA_NO_SCRATCH_RECLAIM", "1", "scratch memory stays with its queue instead of being given back"),
)
_ZAYA1_8B_BYTES = 17_700_000_000  # in bfloat16


def _setting(environment: Environment, name: str, value: str, reason: str) -> Finding:
    found = environment.get(name)
    if found == value:
        return Finding("OK", f"{name} is {value}")
    text = f"{name} is {'not set' if found is None else found}; AMD's MI300X settings have {value}: {reason}"
    return Finding("WARN", text, f"export {name}={value}")


def _requirements() -> list[str]:
    try:
        return importlib.metadata.requires("zaya_jax") or []
    except importlib.metadata.PackageNotFoundError:
        return []


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _parse(requirement: str) -> tuple[str, str]:
    """Name and bounds of a requirement: ("jax", "<0.12,>=0.10.2")."""
    name, bounds = re.match(r"([\w.-]+)(?:\[[^]]*\])?\s*([^;\s]*)", requirement).groups()
    return name, bounds


def _wrong_version(name: str, bounds: str, version: str | None) -> Finding | None:
    install = f"pip install '{name}{bounds}'"
    if version is None:
        return Finding("FAIL", f"{name} is missing", install)
    outside = [bound for bound in bounds.split(",") if bound and not _within(version, bound)]
    if not outside:
        return None
    untested = all(bound.startswith("<") for bound in outside)
    return Finding("WARN" if untested else "FAIL", f"{name} {version} is not {', '.join(outside)}", install)


def _within(version: str, bound: str) -> bool:
    operator, limit = re.match(r"([<>=]+)(.+)", bound).groups()
    found, limit = _numbers(version), _numbers(limit)
    return {"==": found == limit, ">=": found >= limit, "<": found < limit}[operator]


def _numbers(version: str) -> tuple[int, ...]:
    """The release of a version without trailing zeros: (2, 13) of "2.13.0+cpu"."""
    release = re.match(r"\d+(\.\d+)*", version)[0]
    return tuple(map(int, re.sub(r"(\.0)+$", "", release).split(".")))


def _extra(name: str, needed: Sequence[tuple[str, str]], installed: Versions) -> Finding:
    wrong = [finding for need in needed if (finding := _wrong_version(*need, installed.get(need[0])))]
    if not wrong:
        return Finding("OK", f"extra {name}: " + ", ".join(f"{package} {installed[package]}" for package, _ in needed))
    text, fix = wrong[0].text, f"pip install -e '.[{name}]'"
    if "missing" in text:
        return Finding("OK", f"extra {name} is not installed ({text}); if you want it: {fix}")
    return Finding("WARN", f"extra {name}: {text}", fix)


def _memory(size: int | None) -> str:
    return "" if size is None else f" with {size / 1e9:.0f} GB for jax"


def _rate(operations: float) -> str:
    return f"{operations / 1e12:.1f} TFLOP/s" if operations >= 1e12 else f"{operations / 1e9:.0f} GFLOP/s"
