"""Compiles every kernel for MI300X (gfx942) and H100 (sm_90) on a machine that has neither, and judges the code.

    python -m kernels_pallas.aot            # compare with kernels_pallas/aot.json
    python -m kernels_pallas.aot --update   # write it anew

Registers, spills, scratch, LDS, matrix instructions and code size of each. It fails (exit code 1) on a spill, on
scratch, on more LDS than there is, on no matrix instruction, and on a figure more than 5% from the committed one.
Needs the extra `aot` (triton 3.6.0): `make kernels-aot` sets up an environment for it.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import dataclasses
import importlib.util
import json
import multiprocessing
import pathlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator

import jax
from jax import export
from jax._src.interpreters import mlir
from jax._src.lib.mlir import ir
from jaxlib.triton import dialect

from kernels_pallas.aot_cases import Case, cases

COMMITTED = pathlib.Path(__file__).with_suffix(".json")
DRIFT = 0.05
LDS = {"gfx942": 64 * 1024, "sm_90": 227 * 1024}  # bytes a block may have
PLATFORMS = {"gfx942": "rocm", "sm_90": "cuda"}
_CALL = "__gpu$xla.gpu.triton"

_COLUMNS = {"registers": 9, "spills": 6, "scratch": 7, "lds": 6, "matrix_instructions": 19, "code_bytes": 10}
_HEAD = f"{'kernel':<48} {'target':<7} " + " ".join(f"{key:>{width}}" for key, width in _COLUMNS.items())

Figures = dict[str, int]


@dataclasses.dataclass(frozen=True)
class Kernel:
    """What jax hands to Triton: the module's text, and how it is to be compiled."""

    name: str
    ttir: str
    num_warps: int
    num_stages: int


def lowered(case: Case, platform: str) -> list[Kernel]:
    """The kernels in a function's program for "rocm" or "cuda"."""
    function, shapes = case
    checks = [export.DisabledSafetyCheck.custom_call(_CALL)]
    module = export.export(jax.jit(function), platforms=[platform], disabled_checks=checks)(*shapes).mlir_module()
    found: list[Kernel] = []
    with mlir.make_ir_context() as context:
        dialect.register_dialect(context)

        def visit(operation):
            attributes = operation.attributes
            is_call = operation.name == "stablehlo.custom_call"
            if is_call and ir.StringAttr(attributes["call_target_name"]).value == _CALL:
                found.append(_kernel(ir.DictAttr(attributes["mhlo.backend_config"])))
            return ir.WalkResult.ADVANCE

        ir.Module.parse(module).operation.walk(visit)
    return found


def _kernel(config: ir.DictAttr) -> Kernel:
    text = ir.Module.parse(ir.StringAttr(config["ir"]).value_bytes).operation.get_asm(enable_debug_info=False)
    warps, stages = (ir.IntegerAttr(config[key]).value for key in ("num_warps", "num_stages"))
    return Kernel(ir.StringAttr(config["name"]).value, text, warps, stages)


def compiled(kernel: Kernel, target: str) -> Figures:
    """Compiles a kernel for "gfx942" or "sm_90"; what it takes."""
    import triton
    from triton.backends.compiler import GPUTarget

    to = GPUTarget("hip", "gfx942", 64) if target == "gfx942" else GPUTarget("cuda", 90, 32)
    with tempfile.TemporaryDirectory() as directory:
        source = pathlib.Path(directory, "kernel.ttir")
        source.write_text(kernel.ttir)
        options = {"num_warps": kernel.num_warps, "num_stages": kernel.num_stages}
        result = triton.compile(str(source), target=to, options=options)
    read = _amd if target == "gfx942" else _nvidia
    return read(result.asm) | {"lds": result.metadata.shared}


def _amd(asm: dict) -> Figures:
    text = asm["amdgcn"]

    def number(key):
        return int(re.search(rf"\.{key}:\s*(\d+)", text)[1])

    return {
        "registers": number("vgpr_count"),
        "spills": number("vgpr_spill_count") + number("sgpr_spill_count"),
        "scratch": number("private_segment_fixed_size"),
        "matrix_instructions": len(re.findall(r"v_mfma_", text)),
        "code_bytes": len(asm["hsaco"]),
    }


def _nvidia(asm: dict) -> Figures:
    import triton

    tool = pathlib.Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(asm["cubin"])
        file.flush()
        usage = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
    registers, stack = (int(re.search(rf"{key}:(\d+)", usage)[1]) for key in ("REG", "STACK"))
    return {
        "registers": registers,
        "spills": int(stack > 0),
        "scratch": stack,
        "matrix_instructions": len(re.findall(r"wgmma\.mma_async|mma\.sync", asm["ptx"])),
        "code_bytes": len(asm["cubin"]),
    }


def problems(target: str, figures: Figures, committed: Figures | None, float32: bool = False) -> list[str]:
    """What is wrong with a compiled kernel, in words. NVIDIA multiplies exact float32 without matrix instructions."""
    wrong = [f"{figures[key]} {key}" for key in ("spills", "scratch") if figures[key]]
    if figures["lds"] > LDS[target]:
        wrong.append(f"{figures['lds']} bytes of LDS, at most {LDS[target]}")
    if not figures["matrix_instructions"] and not (float32 and target == "sm_90"):
        wrong.append("no matrix instruction")
    if committed is None:
        return [*wrong, "not in aot.json: run with --update"]
    for key, value in figures.items():
        if abs(value - committed.get(key, 0)) > DRIFT * committed.get(key, 0):
            wrong.append(f"{key} {value}, was {committed.get(key)}")
    return wrong


def main(arguments: list[str]) -> int:
    """Compiles all, prints a table; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--update", action="store_true", help="write aot.json anew")
    update = parser.parse_args(arguments).update
    if importlib.util.find_spec("triton") is None:
        print("error: triton is missing; `make kernels-aot` sets up an environment that has it", file=sys.stderr)
        return 2
    committed = {} if update else json.loads(COMMITTED.read_text(encoding="utf-8"))
    found: dict[str, dict[str, Figures]] = {}
    failures = 0
    print(_HEAD)
    for name, target, figures in _compile_all():
        found.setdefault(name, {})[target] = figures
        before = figures if update else committed.get(name, {}).get(target)
        wrong = problems(target, figures, before, "float32" in name)
        failures += len(wrong)
        print(f"{name:<48} {target:<7}", *(f"{figures[key]:>{width}}" for key, width in _COLUMNS.items()))
        print(*(f"  FAIL {line}\n" for line in wrong), sep="", end="", flush=True)
    for name in sorted(set(committed) - set(found)):
        failures += 1
        print(f"  FAIL {name} is in {COMMITTED.name} and was not compiled: run with --update")
    if update:
        COMMITTED.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    print(f"{sum(map(len, found.values()))} compiled, {failures} failures. No kernel here has run on an MI300X.")
    return 1 if failures else 0


def _compile_all() -> Iterator[tuple[str, str, Figures]]:
    jobs = [
        (f"{name}/{kernel.name}", target, kernel)
        for name, case in cases().items()
        for target, platform in PLATFORMS.items()
        for kernel in lowered(case, platform)
    ]
    with concurrent.futures.ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
        figures = pool.map(compiled, [job[2] for job in jobs], [job[1] for job in jobs])
        yield from ((name, target, result) for (name, target, _), result in zip(jobs, figures, strict=True))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
