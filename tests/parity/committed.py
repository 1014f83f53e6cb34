"""Reading the committed goldens; needs neither torch nor pytest."""

import json
from pathlib import Path

import numpy as np

from tests.model.helpers import Batch, random_tensors, random_variables
from tests.parity.make_goldens import checksum
from zaya_jax.model import ModelConfig, Rope

FOLDER = Path(__file__).parent / "goldens"
FILES = sorted(FOLDER.glob("*.npz"))


def read(path):
    golden = dict(np.load(path))
    fields = json.loads(str(golden["config"]))
    ropes = {name: Rope(**fields[name]) for name in ("full_rope", "sliding_rope")}
    config = ModelConfig(**fields | ropes | {"layer_types": tuple(fields["layer_types"])})
    batch = Batch(golden["tokens"], golden["positions"], golden["segments"])
    return golden, config, batch


def weights(golden, config, execution):
    seed = int(golden["seed"])
    drawn = checksum(random_tensors(config, seed))
    assert np.isclose(drawn, golden["checksum"], rtol=1e-9), "random_tensors draws other weights than the goldens had"
    return random_variables(config, execution, seed)
