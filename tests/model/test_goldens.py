"""float32 logits, routes and greedy text next to those that transformers 5.23 computed on the same weights.

The files were written by `tests/parity/make_goldens.py`; reading them needs no torch.
"""

import numpy as np
import pytest

from tests.model.generation import assert_same_choices, greedy
from tests.model.helpers import LAYOUTS, compiled
from tests.parity.committed import FILES, FOLDER, read, weights
from zaya_jax.model import Execution

TOLERANCE = 2e-5  # of the largest logit


def test_there_are_goldens():
    assert len(FILES) >= 8


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_logits_and_routes(path):
    golden, config, batch = read(path)
    # One layout each, to save compiling: both are compared with each other in float64 elsewhere.
    execution = Execution(layout=LAYOUTS[FILES.index(path) % 2])
    out = compiled(config, execution, quick=True)(weights(golden, config, execution), *batch)
    logits = np.asarray(out.logits)[batch.real]
    assert np.abs(logits - golden["logits"]).max() <= TOLERANCE * np.abs(golden["logits"]).max()
    np.testing.assert_array_equal(np.asarray(out.routes_LBT)[:, batch.real], golden["routes"])


def test_the_skip_class_is_among_the_routes():
    counts = [(read(path)[0]["routes"] == read(path)[1].num_experts).sum() for path in FILES]
    assert sum(map(bool, counts)) > len(FILES) / 2


@pytest.mark.parametrize("name", ["left_padded", "sliding_and_full"])
def test_greedy_text(name):
    golden, config, prompts = read(FOLDER / f"{name}.npz")
    execution = Execution(layout="stacked" if name == "left_padded" else "unstacked")
    found = greedy(config, execution, weights(golden, config, execution), prompts, golden["generated"].shape[1])
    noise = TOLERANCE * float(np.abs(golden["logits"]).max())
    assert_same_choices(found, golden["generated"], golden["margins"], noise)
