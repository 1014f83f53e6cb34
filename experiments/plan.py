"""Plans a training run without its devices: memory item by item, exchanges, the time of a step.

    python -m experiments.plan --model=zaya1_8b --topology=1x8,128x8 --chip=mi300x --length=4096
    python -m experiments.plan --model=zaya1_8b --topology=1x8 --length=4096 --rows=64 --mesh=fsdp=8 --json=plan.json
    python -m experiments.plan --config=configs/sft/sft.py:scale=8b,devices=1024 --topology=128x8

Nothing is allocated or compiled. What does not fit gets the first change that would make it fit, of a fixed order.
How far the figures are from what XLA:ROCm compiles is in docs/plan.md, which --page writes anew.
"""

from absl import flags
from ml_collections import config_flags

from experiments import launch

FLAGS = flags.FLAGS
_CONFIG = config_flags.DEFINE_config_file("config", None, "A run, FILE.py:...; instead of all flags but the next two.")
flags.DEFINE_string("model", "zaya1_8b", "A preset.")
flags.DEFINE_list("topology", ["1x8"], "NODESxDEVICES; several are planned side by side.")
flags.DEFINE_string("chip", "mi300x", "A chip of zaya_jax/train/chips.py.")
flags.DEFINE_integer("length", 4096, "Tokens of a row.")
flags.DEFINE_integer("rows", 0, "Rows of a step on all devices; 0: about 16,384 tokens of a device.")
flags.DEFINE_integer("accumulate", 1, "Microbatches of a step.")
flags.DEFINE_string("mesh", "", "As data=16,fsdp=8; empty: context by length, FSDP within a node, data across.")
flags.DEFINE_string("optimizer", "muon", "muon or adamw.")
flags.DEFINE_float("momentum", 0.95, "Muon's; 0 remembers nothing.")
flags.DEFINE_string("newton_schulz_dtype", "exact", "Type of Muon's iteration: exact or bfloat16.")
flags.DEFINE_bool("zero1", True, "Whether memories are split further than weights.")
flags.DEFINE_string("dtype", "bfloat16", "float64, float32 or bfloat16.")
flags.DEFINE_string("remat", "block", "none, block or dots.")
flags.DEFINE_integer("loss_chunk", 1024, "Tokens whose logits exist at a time; 0: all.")
flags.DEFINE_string("dispatch", "gather", "How tokens meet experts along expert: gather, dense or ragged.")
flags.DEFINE_integer("steps", 0, "Also the days that so many steps take.")
flags.DEFINE_string("json", None, "Where the plans go as JSON.")
flags.DEFINE_string("page", None, "Write this page (docs/plan.md) instead of printing.")


def main(_):
    from zaya_jax.train import plan_command, plan_config
    from zaya_jax.train.config import RunConfig
    from zaya_jax.train.settings import from_dict

    if FLAGS.page:
        return plan_command.write_page(FLAGS.page)
    if _CONFIG.value is not None:
        config = from_dict(RunConfig, launch.configuration(_CONFIG))
        return plan_config.show(config, FLAGS.topology, FLAGS.chip, FLAGS.json)
    names = ["length", "rows", "accumulate", "mesh", "dtype", "remat", "loss_chunk", "dispatch", "chip"]
    optimizer = {"name": FLAGS.optimizer, **{n: FLAGS[n].value for n in ("momentum", "newton_schulz_dtype", "zero1")}}
    options = {name: FLAGS[name].value for name in names}
    plan_command.run(FLAGS.model, FLAGS.topology, optimizer, options, FLAGS.steps, FLAGS.json)


if __name__ == "__main__":
    launch.run(main)
