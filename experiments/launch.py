"""What every launcher shares: `run(main)`, help with an example, errors in one line, compiled programs kept on disk."""

import difflib
import os
import re
import sys
import traceback
import warnings

from absl import app, flags, logging

from experiments import huge_pages
from zaya_jax.errors import UserError

FLAGS = flags.FLAGS
_CACHE = os.environ.get("JAX_COMPILATION_CACHE_DIR", "~/.cache/zaya_jax/jax")
flags.DEFINE_bool("debug", False, "Show the traceback of an error.")
flags.DEFINE_string("compile_cache_dir", _CACHE, "Where compiled programs are kept; empty: nowhere.")
_REQUIRED = "must have a value other than None"  # absl's words; nothing else tells a required flag


def run(main):
    """Parses the flags and calls `main(argv)`; a user's mistake ends in one line on stderr and exit code 2."""
    if main.__module__ == "__main__":  # the command itself, which may start once more; not a test that calls it
        huge_pages.use()
    warnings.showwarning = _warn
    app.run(lambda argv: _guarded(main, argv), flags_parser=lambda argv: _guarded(_parse, argv))


def _guarded(function, argv):
    try:
        return function(argv)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # whoever read stdout, `head` for instance, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (UserError, flags.Error, app.UsageError) as error:
        if FLAGS["debug"].value:
            traceback.print_exc()
        print("error:", " ".join(_explain(error).split()), file=sys.stderr)
        sys.exit(2)


def _warn(message, *_, **__):
    print("warning:", " ".join(str(message).split()), file=sys.stderr)


def _explain(error):
    if isinstance(error, flags.UnrecognizedFlagError):
        close = difflib.get_close_matches(error.flagname, [flag.name for flag in _flags()], 1)
        return f"unknown flag --{error.flagname}; " + (f"did you mean --{close[0]}?" if close else "see --help")
    if _REQUIRED in str(error):
        return f"{str(error).partition('=')[0]} is required; --help shows an example"
    return str(error)


def _parse(argv):
    FLAGS["help"].parse = _help  # absl's own exits with 1 and shows no example
    try:
        argv = FLAGS(argv)
    except (AttributeError, KeyError) as error:  # ml_collections', of --config.NAME=VALUE where there is no such name
        said = str(error).replace("\\n", "; ").replace("\\", "").replace("'", "").strip('"')  # quoted twice by KeyError
        raise app.UsageError(f"--config: unknown key {said}") from error
    except ValueError as error:  # its too, of --config.NAME.KEY=VALUE where NAME is None
        found = re.search(r'Override (\S+) .*field "(\w+)" is None', str(error))
        if found is None:
            raise app.UsageError(f"--config: {error}") from error
        said = f"cannot be set, as {found[2]} is off; turn it on behind the colon or in the file"
        raise app.UsageError(f"--config.{found[1]}: {said}") from error
    if argv[1:]:
        raise app.UsageError(f"unexpected argument {argv[1]!r}; values are given as --name=value, see --help")
    if FLAGS["verbosity"].using_default_value:  # absl would make it INFO, which buries what the user should see
        FLAGS.verbosity = logging.WARNING
    _keep_compiled_programs(FLAGS.compile_cache_dir)
    return argv


def _keep_compiled_programs(directory):
    import jax  # here, so that --help and a mistaken flag answer at once

    jax.config.update("jax_compilation_cache_dir", os.path.expanduser(directory) or None)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def configuration(holder):
    """The values of a flag of `config_flags.DEFINE_config_file`, as nested dictionaries."""
    try:
        values = None if holder.value is None else holder.value.to_dict()
    except OSError as error:
        raise app.UsageError(f"--{holder.name}: cannot be read; {str(error).splitlines()[-1].strip()}") from error
    if values is None:
        raise app.UsageError(f"--{holder.name} is required; --help shows an example")
    return values


def _flags():
    return [*FLAGS.get_key_flags_for_module(sys.argv[0]), FLAGS["debug"], FLAGS["compile_cache_dir"]]


def _help(_):
    print(sys.modules["__main__"].__doc__, "Flags:", *map(_row, _flags()), sep="\n")
    sys.exit(0)


def _row(flag):
    required = any(_REQUIRED in (validator.message or "") for validator in flag.validators)
    default = " (required)" if required else f" (default: {flag.default_as_str})" if flag.default is not None else ""
    return f"  --{flag.name}: {flag.help}{default}"
