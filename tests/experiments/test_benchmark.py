"""The benchmarks run, on a model too small for their figures to mean anything."""

import pytest

from tests.experiments.launching import launch

pytestmark = pytest.mark.usefixtures("quick_programs")


def test_one_answer_from_the_start_of_a_process(checkpoint):
    code, out, error = launch(
        "benchmark_checkpoint",
        f"--checkpoint={checkpoint}",
        "--engines=zaya_jax,zaya_jax again",
        "--prompt_tokens=5",
        "--new_tokens=2",
        "--repeats=1",
    )
    assert code == 0, error
    first, *rows = (line.strip("|").split("|") for line in out.splitlines() if line.startswith("|"))
    assert [cell.strip() for cell in first] == ["", "zaya_jax", "zaya_jax again"]
    assert len(rows) == 9 and all(len(row) == 3 for row in rows)
    assert out.count("GB/s") == 3


def test_an_unknown_engine_is_refused(checkpoint):
    code, out, error = launch("benchmark_checkpoint", f"--checkpoint={checkpoint}", "--engines=vllm")
    assert (code, out) == (2, "")
    assert error == "error: --engines: unknown name; expected zaya_jax, zaya_jax again, transformers; found vllm\n"
