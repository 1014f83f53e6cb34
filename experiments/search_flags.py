"""Flags that `evaluate` and `markovian_rsa` share."""

from absl import flags

FLAGS = flags.FLAGS
flags.disclaim_key_flags()  # they are those of the launcher that calls `define`, and stand in its --help
_WANTED = ("n", "c", "t", "beta", "tau", "answer_budget", "head", "temperature", "top_p", "top_k", "min_p", "parents",
           "carry", "probe_answers", "final_call", "seed")  # fmt: skip


def define():
    """Declares them as flags of the launcher that calls."""
    flags.DEFINE_string("checkpoint", None, "Directory of a checkpoint, or owner/name of the Hub.")
    flags.DEFINE_string("output", None, "Directory of the results.", required=True)
    flags.DEFINE_list("environments", [], "Task families whose held-out problems are answered.")
    flags.DEFINE_string("difficulties", "0", "Of these, e.g. 0-4 or 0,2,8; each a benchmark of its own.")
    flags.DEFINE_integer("count", 50, "Problems of each family and difficulty.", lower_bound=1)
    flags.DEFINE_integer("n", None, "Candidates a round, or samples a problem (16, or the preset's).")
    flags.DEFINE_integer("c", 4, "Tails a prompt.")
    flags.DEFINE_integer("t", 2, "Rounds of aggregation behind round 0.")
    flags.DEFINE_integer("beta", None, "Most tokens of reasoning (16384, or for single answers all the context has).")
    flags.DEFINE_integer("tau", 4096, "Most tokens of a tail.")
    flags.DEFINE_integer("answer_budget", None, "Most tokens of an answer (40960, or 8192 for single answers).")
    flags.DEFINE_integer("head", 100, "Tokens of the first chunk that later ones keep (delethink).")
    flags.DEFINE_float("temperature", None, "0 is greedy (1, or the preset's).")
    flags.DEFINE_float("top_p", None, "Keep the most probable tokens of this mass (1, or the preset's).")
    flags.DEFINE_integer("top_k", None, "Keep this many most probable tokens (-1, off, or the preset's).")
    flags.DEFINE_float("min_p", 0.0, "Keep tokens this many times as probable as the first; 0 is off.")
    flags.DEFINE_enum("parents", "uniform", ["uniform", "own"], "Whose tails a candidate reads.")
    flags.DEFINE_enum("carry", "tail", ["tail", "answer"], "Carry tails, or the answers of those who finished.")
    flags.DEFINE_bool("probe_answers", False, "Look at what earlier rounds would have answered; billed apart.")
    flags.DEFINE_bool("final_call", False, "One more candidate, of tails of the last round.")
    flags.DEFINE_integer("seed", 0, "Another seed gives another run.", lower_bound=0)
    flags.DEFINE_string("wording", None, "Aggregation prompts: math, code, choice, general, compact, or a file.")
    flags.DEFINE_string("prompts", None, "Directory of one's own templates of problems.")
    flags.DEFINE_integer("slots", 16, "Candidates drawn together.")
    flags.DEFINE_integer("context", None, "Most tokens of prompt and answer; the model's by default.", lower_bound=1)
    flags.DEFINE_enum("dtype", "bfloat16", ["float32", "bfloat16"], "What the model is computed in.")
    flags.DEFINE_integer("workers", 2, "Answers graded at once where that is slow.", lower_bound=1)
    flags.DEFINE_bool("html", False, "Write pages to look at.")
    flags.DEFINE_bool("allow_unisolated", False, "Run generated code even where it cannot be isolated.")


def machine():
    """What the flags say of where it runs."""
    from zaya_jax.errors import mistake
    from zaya_jax.evaluation.search_run import Machine

    if FLAGS.checkpoint is None:
        raise mistake("--checkpoint is required", fix="--help shows an example")
    return Machine(FLAGS.checkpoint, FLAGS.dtype, FLAGS.slots, context=FLAGS.context)


def families():
    """The held-out problems that the flags ask for, by benchmark."""
    from zaya_jax.environments.sft import parse_difficulties
    from zaya_jax.evaluation.families import family_benchmarks

    given = FLAGS.environments
    return family_benchmarks(given, parse_difficulties(FLAGS.difficulties), FLAGS.count) if given else {}


def wanted(method, preset=None):
    """What the flags ask for; those that the method has no use for are refused."""
    from zaya_jax.evaluation.wanted import Wanted, check_given

    check_given(method, [name for name in (*_WANTED, "wording") if FLAGS[name].present])
    return Wanted(method, **{name: getattr(FLAGS, name) for name in _WANTED}, preset=preset)
