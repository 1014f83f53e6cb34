"""Makes SFT rows and RL prompts that teach a model to aggregate attempts, as Markovian RSA asks it to.

    python -m experiments.make_aggregation_data --checkpoint=DIR --problems=problems.jsonl --teacher=DIR \\
        --n=8 --c=4 --m=4 --mix=all_wrong=0.2,mixed=0.6,all_right=0.2 --output=out/aggregation
    python -m experiments.make_aggregation_data --rollouts=out/a/aime25 --problems=aime25.jsonl --rl_only --output=out/b

n rollouts a problem, sampled or of a finished run; m prompts of c tails each; answered by a teacher, by an oracle (a
function of a problem and its attempts' texts) or by nobody. An interrupted run goes on. See docs/markovian_rsa.md.
"""

from absl import flags

from experiments import launch

FLAGS = flags.FLAGS
flags.DEFINE_string("checkpoint", None, "Makes the rollouts: a directory, or owner/name of the Hub.")
flags.DEFINE_string("rollouts", None, "Directory of a finished run to take rollouts from instead.")
flags.DEFINE_string("problems", None, "A jsonl file of problems.", required=True)
flags.DEFINE_string("output", None, "Directory of the results.", required=True)
flags.DEFINE_string("teacher", None, "Answers the prompts: a checkpoint with the same tokenizer.")
flags.DEFINE_string("oracle", None, "Answers the prompts: package.module:function.")
flags.DEFINE_bool("rl_only", False, "Nobody answers: RL prompts alone.")
flags.DEFINE_integer("n", None, "Rollouts a problem (8, or those there are).", lower_bound=1)
flags.DEFINE_integer("c", 4, "Tails a prompt.")
flags.DEFINE_integer("m", 4, "Prompts a problem.")
flags.DEFINE_integer("beta", None, "Most tokens of reasoning of a rollout (16384, or what it had).", lower_bound=1)
flags.DEFINE_integer("tau", 4096, "Most tokens of a tail.")
flags.DEFINE_integer("teacher_beta", None, "Most tokens of the teacher's reasoning (beta).", lower_bound=1)
flags.DEFINE_integer("answer_budget", 8192, "Most tokens of an answer, behind the reasoning.")
flags.DEFINE_string("mix", None, "Shares of all_wrong, mixed, all_right attempts; by default as they are drawn.")
flags.DEFINE_enum("inexact", "keep", ["keep", "drop"], "Prompts whose text is cut into other tokens than their own.")
flags.DEFINE_float("temperature", 1.0, "0 is greedy.")
flags.DEFINE_float("top_p", 1.0, "Keep the most probable tokens of this mass.")
flags.DEFINE_integer("seed", 0, "Another seed gives other rollouts, draws and replies.", lower_bound=0)
flags.DEFINE_string("wording", None, "Aggregation prompts: math, code, choice, general, or a file.")
flags.DEFINE_string("prompts", None, "Directory of one's own templates of problems.")
flags.DEFINE_integer("limit", None, "Only the first problems.", lower_bound=1)
flags.DEFINE_integer("slots", 16, "Rollouts drawn together.")
flags.DEFINE_enum("dtype", "bfloat16", ["float32", "bfloat16"], "What the models are computed in.")
flags.DEFINE_bool("allow_unisolated", False, "Run generated code even where it cannot be isolated.")
_GIVEN = ("n", "c", "m", "beta", "tau", "teacher", "teacher_beta", "answer_budget", "inexact", "seed", "wording",
          "oracle", "rl_only")  # fmt: skip


def main(_):
    from zaya_jax.evaluation.aggregation_data import Machine, Making, make_aggregation_data
    from zaya_jax.evaluation.aggregation_mix import parse_mix
    from zaya_jax.sampling.request import Sampling

    given = {name: getattr(FLAGS, name) for name in _GIVEN}
    mix = None if FLAGS.mix is None else parse_mix(FLAGS.mix)
    making = Making(**given, sampling=Sampling(FLAGS.temperature, FLAGS.top_p), mix=mix)
    more = {name: getattr(FLAGS, name) for name in ("rollouts", "prompts", "limit", "allow_unisolated")}
    machine = Machine(FLAGS.checkpoint, FLAGS.dtype, FLAGS.slots)
    print(make_aggregation_data(machine, FLAGS.problems, making, FLAGS.output, **more))


if __name__ == "__main__":
    launch.run(main)
