"""Pretraining, phase 1: web, code, mathematics and languages; 8T tokens in the original (report, Table II).

    python -m experiments.train --config=configs/pretrain/phase1.py:scale=nano --workdir=out/phase1
    python -m experiments.train --config=configs/pretrain/phase1.py:scale=nano,runlocal --workdir=out/smoke
    python -m experiments.train --config=configs/pretrain/phase1.py:scale=8b,devices=1024,data=DIR --workdir=out/phase1

Behind the colon:
    scale     nano: 1.9M parameters, bytes as tokens, about 10 minutes on two cores; small: 0.67B; 8b: ZAYA1-8B
    runlocal  20 short steps of nano's model with all else as the scale has it, to see that it works
    data      directory with web.jsonl, code.jsonl, math.jsonl, languages.jsonl and held_out.jsonl (docs/data.md); nano
              reads the sources of Python's standard library instead
    devices   how many there will be: it sets rows and accumulate, so that a step has the same tokens on any number
    initial   a checkpoint in the hub's format to go on with, and its tokenizer; without one --config.tokenizer=DIR says
              which (nano takes bytes)

The rate, 6e-4 down to 2e-4, is what has been said of an earlier run of the same makers, at second hand; nano's and
small's are ours, and so are the shares of the four sources: the report gives none.
"""

from configs.pretrain.phases import pretraining

SOURCES = {"web": 0.5, "code": 0.25, "math": 0.15, "languages": 0.1}


def get_config(argument=None):
    """The run; `argument` is what stands behind the colon."""
    rate = {"nano": 1e-2, "small": 1e-3, "8b": 6e-4}
    final = {"nano": 0.1, "small": 1 / 3, "8b": 1 / 3}
    return pretraining(argument, "pretrain-1", 8 * 10**12, SOURCES, rate, final, warmup=0.02)
