"""Supervised finetuning: conversations in windows of 131,072 tokens, rotary base 5,000,000; 660B tokens (Table II).

    python -m experiments.train --config=configs/sft/sft.py:scale=nano,initial=out/mid/model --workdir=out/sft
    python -m experiments.train --config=configs/sft/sft.py:scale=8b,initial=DIR,data=DIR --workdir=out/sft
    python -m experiments.train --config=configs/sft/sft.py:scale=8b,initial=DIR,data=DIR,lora --workdir=out/lora
    python -m experiments.train --config=configs/sft/sft.py:scale=8b,initial=DIR,data=DIR,dpo --workdir=out/dpo

Behind the colon:
    scale     nano (windows of 512 bytes: sums with their working, made on the spot), small, 8b
    runlocal  20 short steps of nano's model with all else as the scale has it
    data      directory with a file of each source below (chat, docs/data.md), and held_out.jsonl; with dpo preferences.jsonl
    devices   how many there will be; eight share a row (context parallelism, as in the original)
    initial   the last phase's model, in the hub's format
    lora      trains adapters of attention, router and experts with AdamW; the exported model has them merged
    dpo       trains on pairs of answers instead of conversations

Only what the assistant says counts in the loss; what is too long loses the end of its reasoning, never an answer
(report, III-A). Shares are the report's (Table III), but for that of the aggregation rows, prompts of Markovian RSA with
the tails of several attempts: the report says that there are such rows, not how many; 5 % of the reasoning is ours. So
is the rate.
"""  # noqa: E501

from configs.common import as_config, parse
from configs.scales import batch, scale
from zaya_jax.data.dataset import DataConfig
from zaya_jax.data.sources import SourceConfig
from zaya_jax.model.lora import LoraConfig
from zaya_jax.train.config import CheckpointPolicy, Evaluation, MeshConfig, RunConfig, Samples
from zaya_jax.train.optimizer import OptimizerConfig
from zaya_jax.train.preference import DpoConfig

LENGTH, THETA, CONTEXT, TOKENS = 131072, 5e6, 8, 660_000_000_000
AGGREGATION = 0.05
PROMPT = "<|im_start|>user\nWhat is 17 + 25?<|im_end|>\n<|im_start|>assistant\n"
SOURCES = {
    "long_cot": 0.75 - AGGREGATION,
    "aggregation": AGGREGATION,
    "web": 0.098,
    "long_context": 0.064,
    "code": 0.05,
    "math": 0.026,
    "instruct": 0.012,
}


def get_config(argument=None):
    """The run; `argument` is what stands behind the colon."""
    defaults = {"scale": "nano", "runlocal": False, "data": "data/sft", "initial": "", "devices": 8}
    given = parse(argument, **defaults, lora=False, dpo=False)
    size, local = scale(given), given.scale == "nano" or given.runlocal
    length = 512 if local else LENGTH
    step = {"rows": 4} if local else batch(size.tokens, length, given.devices, min(given.devices, CONTEXT))
    steps = 20 if given.runlocal else 500 if local else TOKENS // size.tokens
    train, held_out = _sources(given, local)
    return as_config(
        RunConfig(
            name="dpo" if given.dpo else "sft",
            model=size.sized(LENGTH, THETA),
            data=DataConfig(train, length=length),
            initial=given.initial,
            optimizer=_optimizer(given, size),
            balance_rate=0.0 if given.dpo or given.lora else 1e-3,
            lora=LoraConfig() if given.lora else None,
            dpo=DpoConfig() if given.dpo else None,
            steps=steps,
            mesh=MeshConfig() if local else MeshConfig(context=min(given.devices, CONTEXT)),
            evaluation=Evaluation(steps // 4, (held_out,), rows=step["rows"]),
            samples=Samples() if given.dpo else Samples(steps // 4, (PROMPT,)),
            checkpoints=CheckpointPolicy(every=max(min(steps // 10, 500), 5)),
            **step,
            **size.settings(given.initial),
        )
    )


def _sources(given, local):
    if given.dpo:
        train = [SourceConfig("preferences", "preference", f"{given.data}/preferences.jsonl")]
        return train, SourceConfig("held_out", "preference", f"{given.data}/held_out.jsonl")
    if local:
        return [SourceConfig("sums", "sums", "train")], SourceConfig("held_out", "sums", "held_out")
    train = [SourceConfig(name, "chat", f"{given.data}/{name}.jsonl", share) for name, share in SOURCES.items()]
    return train, SourceConfig("held_out", "chat", f"{given.data}/held_out.jsonl")


def _optimizer(given, size):
    """Muon, but for adapters: those are AdamW's, at a rate ten times as high."""
    rate = {"nano": 2e-3, "small": 5e-5, "8b": 2e-5}[given.scale] / (20 if given.dpo else 1)
    if given.lora:
        return OptimizerConfig("adamw", 10 * rate, warmup=0.03, final=0.1, weight_decay=0.0)
    return OptimizerConfig("muon", rate, warmup=0.03, final=0.1, newton_schulz_dtype=size.newton_schulz_dtype)
