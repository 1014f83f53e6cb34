"""Pretraining, phase 2: more code, mathematics, reasoning and instructions; 4T tokens (report, Table II).

    python -m experiments.train --config=configs/pretrain/phase2.py:scale=nano,initial=out/phase1/model --workdir=out/phase2
    python -m experiments.train --config=configs/pretrain/phase2.py:scale=8b,initial=DIR,data=DIR --workdir=out/phase2

Arguments behind the colon as in phase1.py; the directory holds reasoning.jsonl and instructions.jsonl too. Without
`initial` it begins with fresh weights, which is good for a look and nothing else.

The rate goes on where phase 1 ended and falls to a tenth of it. That, like the shares of the sources, is ours.
"""  # noqa: E501

from configs.pretrain.phases import pretraining

SOURCES = {"web": 0.3, "code": 0.25, "math": 0.2, "reasoning": 0.1, "instructions": 0.05, "languages": 0.1}


def get_config(argument=None):
    """The run; `argument` is what stands behind the colon."""
    rate = {"nano": 1e-3, "small": 1e-3 / 3, "8b": 2e-4}
    final = dict.fromkeys(rate, 0.1)
    return pretraining(argument, "pretrain-2", 4 * 10**12, SOURCES, rate, final, warmup=0.0)
