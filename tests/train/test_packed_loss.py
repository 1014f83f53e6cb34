"""Examples packed into windows give the loss and the gradients that they give alone, one a row."""

import jax
import numpy as np
import pytest

from tests.model.helpers import quick_jit, random_variables
from tests.train.models import tiny
from zaya_jax.data.batch import Batch
from zaya_jax.data.dataset import pack
from zaya_jax.data.encoding import Encoded
from zaya_jax.data.packing import best_fit_decreasing
from zaya_jax.model import Execution
from zaya_jax.train.objective import batch_loss
from zaya_jax.train.trainer import Trainer

CONFIG, LENGTH = tiny(), 24


def examples():
    """Of many lengths; some tokens count, some half, some not."""
    random = np.random.default_rng(0)
    lengths = [23, 17, 12, 9, 7, 6, 5, 4, 3, 2, 2, 1]
    return [
        Encoded(
            random.integers(0, CONFIG.vocab_size, n).astype(np.int32),
            random.choice([0.0, 0.5, 1.0], n).astype(np.float32),
            n,
        )
        for n in lengths
    ]


def batch(rows):
    """[B, LENGTH] from lists of examples."""
    packed = [pack(row, LENGTH, 0) for row in rows]
    return Batch(*(np.stack([getattr(row, f"{name[:-3]}_T") for row in packed]) for name in Batch._fields))


@pytest.mark.parametrize("chunk", [0, 7])
def test_packed_and_alone(x64, chunk):
    every = examples()
    bins = best_fit_decreasing([len(example.tokens) for example in every], LENGTH)
    together, alone = batch([[every[i] for i in found] for found in bins]), batch([[example] for example in every])
    assert len(together.tokens_BT) < len(alone.tokens_BT) / 2
    trainer = Trainer(CONFIG, Execution("float64"), loss_chunk=chunk)
    variables = random_variables(CONFIG, trainer.execution)

    def loss(params, given):
        total, count, outputs = batch_loss(trainer, params, variables["balance"], given)
        return total, (count, outputs.router_counts_LC)

    run = quick_jit(jax.value_and_grad(loss, has_aux=True))
    one, two = run(variables["params"], together), run(variables["params"], alone)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-11), one, two)
