"""What both phases of pretraining share: 4,096 tokens a window, rotary base 10,000 (report, Table II)."""

from configs.common import as_config, parse
from configs.scales import batch, scale
from zaya_jax.data.dataset import DataConfig
from zaya_jax.data.sources import SourceConfig
from zaya_jax.train.config import CheckpointPolicy, Evaluation, MeshConfig, RunConfig, Samples
from zaya_jax.train.optimizer import OptimizerConfig

LENGTH, THETA = 4096, 1e4
PYTHON = "python_library"


def pretraining(argument, name, tokens, sources, rate, final, warmup):
    """A phase.

    Args:
        argument: what stands behind the colon.
        name: of the phase.
        tokens: that the original read.
        sources: {name: weight} of the files DIR/NAME.jsonl, for the scales that do not run on Python's library.
        rate: {scale: peak of the learning rate}.
        final: {scale: share of the peak at the end}.
        warmup: share of the run.
    """
    given = parse(argument, scale="nano", runlocal=False, data=f"data/{name}", initial="", devices=8)
    size, local = scale(given), given.scale == "nano" or given.runlocal
    length = (64 if given.runlocal else 256) if local else LENGTH
    step = {"rows": 8} if local else batch(size.tokens, length, given.devices)
    steps = 20 if given.runlocal else 2000 if local else tokens // size.tokens
    train = [SourceConfig(n, "jsonl", f"{given.data}/{n}.jsonl", w) for n, w in sources.items()]
    held_out = SourceConfig("held_out", *((PYTHON, "held_out") if local else ("jsonl", f"{given.data}/held_out.jsonl")))
    prompts = ("def ", "import ", "The ") if local else ("The ", "def ", "Let x be ")
    return as_config(
        RunConfig(
            name=name,
            model=size.sized(LENGTH, THETA),
            data=DataConfig([SourceConfig("python", PYTHON, "train")] if local else train, length=length),
            initial=given.initial,
            optimizer=OptimizerConfig(
                "muon",
                rate[given.scale],
                warmup,
                final[given.scale],
                newton_schulz_dtype=size.newton_schulz_dtype,
            ),
            steps=steps,
            mesh=MeshConfig(fsdp=1 if local else min(given.devices, 8)),
            evaluation=Evaluation(every=max(steps // 4, 1), sources=(held_out,), rows=step["rows"], ngram=5 * local),
            samples=Samples(every=max(steps // 4, 1), prompts=prompts),
            checkpoints=CheckpointPolicy(every=max(min(steps // 10, 500), 5)),
            **step,
            **size.settings(given.initial),
        )
    )
