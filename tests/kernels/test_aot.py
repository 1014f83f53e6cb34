"""The judge of compiled kernels. What it judges needs triton: `make kernels-aot`."""

import json

import pytest

from kernels_pallas import aot
from kernels_pallas.aot_cases import cases

FINE = {
    "registers": 160,
    "spills": 0,
    "scratch": 0,
    "lds": 32768,
    "matrix_instructions": 48,
    "code_bytes": 10000,
}


@pytest.mark.parametrize("target", ["gfx942", "sm_90"])
def test_nothing_is_wrong_with_a_fine_kernel(target):
    assert aot.problems(target, FINE, FINE) == []
    assert aot.problems(target, FINE | {"registers": 167}, FINE) == []


@pytest.mark.parametrize(
    "change, words",
    [
        ({"spills": 3}, "3 spills"),
        ({"scratch": 8}, "8 scratch"),
        ({"lds": 65537}, "65537 bytes of LDS, at most 65536"),
        ({"matrix_instructions": 0}, "no matrix instruction"),
    ],
)
def test_a_bad_kernel_is_named(change, words):
    bad = FINE | change
    assert aot.problems("gfx942", bad, bad) == [words]


def test_drift_and_new_kernels_are_named():
    assert aot.problems("gfx942", FINE | {"registers": 169}, FINE) == ["registers 169, was 160"]
    assert aot.problems("gfx942", FINE, None) == ["not in aot.json: run with --update"]


def test_exact_float32_has_no_matrix_instruction_on_nvidia_only():
    bad = FINE | {"matrix_instructions": 0}
    assert aot.problems("sm_90", bad, bad, float32=True) == []
    assert aot.problems("gfx942", bad, bad, float32=True) == ["no matrix instruction"]


def test_kernels_are_found_in_a_lowered_program():
    case = cases()["8b/train_4k/gate_up"]
    for platform in ("rocm", "cuda"):
        kernels = aot.lowered(case, platform)
        assert [kernel.name for kernel in kernels] == [
            "grouped_swiglu",
            "grouped_swiglu_d_halves",
            "grouped_matmul_d_lhs",
            "grouped_matmul_d_rhs",
        ]
        assert all("tt.dot" in kernel.ttir and kernel.num_warps == 8 for kernel in kernels)


def test_the_committed_figures_are_of_the_cases_and_fine():
    committed = json.loads(aot.COMMITTED.read_text(encoding="utf-8"))
    assert {name.rpartition("/")[0] for name in committed} == set(cases())
    for name, targets in committed.items():
        assert set(targets) == {"gfx942", "sm_90"}
        for target, figures in targets.items():
            assert aot.problems(target, figures, figures, "float32" in name) == [], name


def test_without_triton_it_says_what_to_do(monkeypatch, capsys):
    monkeypatch.setattr(aot.importlib.util, "find_spec", lambda name: None)
    assert aot.main([]) == 2
    assert capsys.readouterr().err.startswith("error: triton is missing; `make kernels-aot`")
