"""How fast the loop of reinforcement learning samples beside its engine alone, both in one process, in turn.

    python -m experiments.benchmark_rl --config=configs/rl/rlve_gym.py:scale=nano,initial=out/sft/model --repeats=5

Both sides draw the answers to the same problems with the same noise, so that they draw the same tokens. "engine" puts
all requests to the engine and waits; "loop" is a wave of `gather`: answers go to the verifiers as they are finished,
and groups, texts and scores are made of them. A figure is the median over the repeats; compiling is not in it.
"""

import statistics

from absl import flags
from ml_collections import config_flags

from experiments import launch

FLAGS = flags.FLAGS
_CONFIG = config_flags.DEFINE_config_file("config", None, "FILE.py or FILE.py:argument=value,...", lock_config=True)
flags.DEFINE_integer("repeats", 5, "Waves of each side.", lower_bound=1)
flags.DEFINE_integer("groups", 0, "Problems of a wave; 0 takes the configuration's.", lower_bound=0)


def main(_):
    from experiments.benchmark_waves import measure
    from zaya_jax.rl.config import RlConfig
    from zaya_jax.train.settings import from_dict

    config = from_dict(RlConfig, launch.configuration(_CONFIG))
    engine, loop = measure(config, FLAGS.repeats, FLAGS.groups or config.groups)
    for name, waves in (("engine", engine), ("loop", loop)):
        speeds = [wave["tokens"] / wave["seconds"] for wave in waves]
        print(f"{name}: {statistics.median(speeds):,.0f} tokens/s, {min(speeds):,.0f} to {max(speeds):,.0f}")
    ratios = [(b["tokens"] / b["seconds"]) / (a["tokens"] / a["seconds"]) for a, b in zip(engine, loop, strict=True)]
    waiting = [wave["waiting"] / wave["seconds"] for wave in loop]
    print(f"loop / engine, pair by pair: {statistics.median(ratios):.1%}, {min(ratios):.1%} to {max(ratios):.1%}")
    print(f"waiting for verdicts when nothing was left to draw: {statistics.median(waiting):.2%} of the loop's time")


if __name__ == "__main__":
    launch.run(main)
