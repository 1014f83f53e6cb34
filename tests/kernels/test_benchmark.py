"""What the benchmark counts, and what its table says; its times are nobody's business here."""

import jax
import numpy as np
import pytest

from kernels_pallas import benchmark
from kernels_pallas.benchmark_cases import _routing, cases
from kernels_pallas.production import MODELS

FORWARD = {"seconds": {"pallas": 2e-3, "xla": 4e-3}, "failed": {"ragged_dot": "JaxRuntimeError: memory"}, "floor": 1e-3}
CPU = {"seconds": {"xla": 4e-3}, "failed": {}, "floor": 1e-3}
BROKEN = {"seconds": {"xla": 4e-3}, "failed": {"pallas": "ValueError: no"}, "floor": 1e-3}


def found(rows):
    ceilings = {"bytes_per_second": 4e12, "flops_per_second": 9e14}
    return {"device": "A GPU", "platform": "gpu", "jax": "0.10.2", "cases": rows} | ceilings


def test_the_table_tells_what_was_reached_and_what_was_not_run():
    lines = benchmark.table(found({"a/forward": FORWARD, "b/forward": CPU})).splitlines()
    assert lines[0] == "A GPU (gpu), jax 0.10.2: a copy 4,000 GB/s, bfloat16 product 900.0 TFLOP/s"
    assert lines[-4] == "| a/forward | 2.000 | 4.000 | failed |  | 1.000 | 50% |"
    assert lines[-3] == "| b/forward |  | 4.000 |  |  | 1.000 | not run |"
    assert lines[-1] == "a/forward: ragged_dot failed: JaxRuntimeError: memory"


def test_a_kernel_that_does_not_run_is_a_failure_and_a_rival_is_not(monkeypatch, capsys):
    assert benchmark.failed_kernels(found({"a": FORWARD, "b": CPU, "c": BROKEN})) == ["c"]
    for rows, code in (({"a": FORWARD}, 0), ({"c": BROKEN}, 1)):
        monkeypatch.setattr(benchmark, "measure", lambda *_, rows=rows: found(rows))
        assert benchmark.main([]) == code
    assert "c: pallas failed: ValueError: no" in capsys.readouterr().out


def test_what_a_rival_cannot_compute_is_told(monkeypatch):
    def broken(*_):
        raise NotImplementedError("not this one\nnor that")

    case = cases(small=True)["small/decode/gate_up"]._replace(others={"ragged_dot": broken})
    seconds, failed = benchmark._rivals(case, backward=False, repeats=1, gpu=False)
    assert set(seconds) == {"xla"} and failed == {"ragged_dot": "NotImplementedError: not this one"}


def test_operations_of_the_production_shapes():
    """By hand: 32,768 tokens of the 8B in training, and the pairs of a causal square."""
    counted = cases(small=False)
    tokens, width = 32768, 2048
    assert counted["8b/train/gate_up"].flops == 2 * tokens * width * 2 * width
    assert counted["8b/train/down"].flops == 2 * tokens * width * width
    assert counted["8b/train/attention"].flops == 4 * 8 * 128 * tokens * (tokens + 1) / 2
    assert counted["8b/train/cca_mix"].flops == 2 * tokens * 10 * 128 * 2 * 128
    assert counted["8b/decode/attention_long"].flops == 4 * 8 * 128 * 131072
    assert counted["8b/decode/attention_long"].bytes == 2 * (2 * 8 * 128 + 2 * 131072 * 2 * 128)
    assert len(counted) == 9 * len(MODELS)


def test_routing_is_skewed_and_whole():
    sizes = _routing(32768, 16)
    assert sizes.sum() == 32768 and sizes.max() > 3 * np.median(sizes)


@pytest.mark.parametrize("name", cases(small=True))
def test_the_rivals_compute_the_same(name):
    case = cases(small=True)[name]
    arguments = case.make()
    exact = jax.jit(lambda *x: case.operation(*x, implementation="reference"))(*arguments)
    for other, function in case.others.items():
        result = jax.jit(function)(*arguments)
        for a, b in zip(jax.tree.leaves(result), jax.tree.leaves(exact), strict=True):
            a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
            assert np.abs(a - b).max() <= 3e-2 * np.abs(b).max(), other


def test_without_a_gpu_the_kernels_are_left_out(capsys):
    assert benchmark.main(["--only", "small/decode/gate_up", "--repeats", "1"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith("| not run |")


def test_a_name_that_no_case_has():
    with pytest.raises(SystemExit) as caught:
        benchmark.main(["--only", "nothing"])
    assert caught.value.code == 2
