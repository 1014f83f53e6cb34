"""The random models on which we are compared with transformers."""

from __future__ import annotations

import dataclasses

from tests.model.helpers import FULL, SLIDING, small
from zaya_jax.model import ModelConfig


@dataclasses.dataclass(frozen=True)
class Case:
    """A model and the rows it reads (see `tests.model.helpers.lay_out`)."""

    config: ModelConfig
    rows: tuple[tuple[int, ...], ...]


def larger(layer_types=(FULL,) * 4, **changes) -> ModelConfig:
    values = {
        "vocab_size": 97,
        "hidden_size": 48,
        "num_query_heads": 8,
        "head_dim": 16,
        "num_experts": 6,
        "expert_hidden_size": 40,
        "router_hidden_size": 24,
        "sliding_window": None,
    }
    return small(layer_types, **values | changes)


ALTERNATING = larger((SLIDING, FULL) * 3, sliding_window=6)

CASES = {
    "gqa_4_to_1": Case(larger(), ((24,), (24,))),
    "gqa_8_to_1": Case(larger(num_query_heads=16), ((24,), (24,))),
    "four_kv_heads": Case(larger(num_kv_heads=4), ((24,), (24,))),
    "one_kv_head": Case(larger(num_kv_heads=1), ((16,),)),
    "sliding_and_full": Case(ALTERNATING, ((32,), (32,))),
    "eight_layers": Case(larger((FULL,) * 8), ((16,),)),
    "odd_length": Case(ALTERNATING, ((13,), (13,), (13,))),
    "one_token": Case(ALTERNATING, ((1,), (1,))),
    "left_padded": Case(ALTERNATING, ((25,), (-7, 18), (-24, 1), (-19, 6))),
    "right_padded": Case(larger(), ((19,), (12, -7))),
}
