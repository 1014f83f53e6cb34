"""What `benchmark_rl` measures: both sides draw the same answers."""

import pytest

from experiments.benchmark_waves import measure
from tests.evaluation.searching import write_roomy
from tests.rl.tiny_runs import config

pytestmark = pytest.mark.usefixtures("quick_programs")


def test_engine_and_loop_draw_the_same_number_of_tokens(tmp_path):
    alone, loop = measure(config(write_roomy(tmp_path / "model")), repeats=2, groups=3)
    assert len(alone) == len(loop) == 2
    assert {wave["tokens"] for wave in (*alone, *loop)} == {alone[0]["tokens"]} and alone[0]["tokens"] > 3 * 4
    assert all(wave["seconds"] > 0 for wave in (*alone, *loop))
    assert all(0 <= wave["waiting"] <= wave["seconds"] for wave in loop)
