"""From a specification to an environment.

    addition                        a native one (zaya_jax/environments/families/, .../instructions/, .../requests.py)
    package.module:attribute        one's own: an Environment, or a function without arguments that gives one
    file:PATH.jsonl                 a benchmark file (docs/benchmarks.md): the seed picks the row
    verl:PATH.parquet               rows of verl's form (zaya_jax/environments/verl.py): the seed picks the row
    reasoning_gym:NAME              a data set of reasoning-gym (extra `rl`)
    rlve:NAME@PATH                  an environment of an RLVE checkout at PATH
    attempts:PATH.jsonl             problems with attempts at them (zaya_jax/environments/aggregation.py)

Only what is named is imported.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Mapping
from typing import Any

from zaya_jax.environments.environment import Environment
from zaya_jax.errors import UserError, mistake

NATIVE = {
    "zaya_jax.environments.families": "FAMILIES",
    "zaya_jax.environments.instructions": "ENVIRONMENTS",
    "zaya_jax.environments.requests": "ENVIRONMENTS",
}
_OWN = "package.module:function"
_FORMS = {
    "file": "file:PATH.jsonl",
    "verl": "verl:PATH.parquet",
    "reasoning_gym": "reasoning_gym:NAME",
    "rlve": "rlve:NAME@PATH",
    "attempts": "attempts:PATH.jsonl?count=4&wording=general",
}
FORMS = (_OWN, *_FORMS.values())  # of what is no native family


def named(specification: str) -> Environment:
    """The environment that a specification names.

    Raises:
        UserError: there is none of this name, what it needs is not installed, or what is there is no environment.
    """
    kind, colon, rest = specification.partition(":")
    if not colon:
        return _native(specification)
    if kind in _READERS:
        if not rest:
            raise mistake("names nothing", where=f"environment {specification!r}", expected=_FORMS[kind])
        return _READERS[kind](rest)
    return _own(specification)


def families() -> Mapping[str, Environment]:
    """The native environments by name."""
    found: dict[str, Environment] = {}
    for package, table in NATIVE.items():
        try:
            found |= getattr(importlib.import_module(package), table)
        except ModuleNotFoundError as error:
            if error.name != package:
                raise
    return found


def _native(name: str) -> Environment:
    known = families()
    if name not in known:
        close = difflib.get_close_matches(name, [*known, *_READERS], 1)
        fix = f"did you mean {close[0]}?" if close else "python -m experiments.environments lists them"
        expected = f"a native family, {', '.join(FORMS)}"
        raise mistake("no such environment", where=repr(name), expected=expected, fix=fix)
    return known[name]


def _own(specification: str) -> Environment:
    module_name, _, attribute = specification.partition(":")
    where = f"environment {specification}"
    if not attribute.isidentifier() or not all(part.isidentifier() for part in module_name.split(".")):
        raise mistake("not a specification", where=where, expected=", ".join(FORMS))
    module = _import(module_name, where)
    if not hasattr(module, attribute):
        close = difflib.get_close_matches(attribute, vars(module), 1)
        fix = f"did you mean {close[0]}?" if close else ""
        raise mistake(f"no {attribute!r} in {module_name}", where=where, found=module.__file__, fix=fix)
    value = getattr(module, attribute)
    return _checked(value if isinstance(value, Environment) else _called(value, where), where)


def _import(name: str, where: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or name
        if missing == name or name.startswith(f"{missing}."):
            fix = "run in its folder, or put that on PYTHONPATH"
            raise mistake(f"no module {missing!r}", where=where, fix=fix) from None
        found = f"it imports {missing!r}, which is not installed"
        raise mistake(f"{name} cannot be imported", where=where, found=found) from None
    except MemoryError:
        raise
    except Exception as error:
        found = f"{type(error).__name__}: {error}"[:200]
        raise mistake(f"{name} cannot be imported", where=where, found=found) from None


def _called(function: Any, where: str) -> Any:
    expected = "an Environment, or a function without arguments that gives one"
    if not callable(function):
        raise mistake("is no environment", where=where, expected=expected, found=f"a {type(function).__name__}")
    try:
        inspect.signature(function).bind()
    except TypeError as error:
        raise mistake("needs arguments", where=where, expected=expected, found=str(error)) from None
    except ValueError:  # a function of C, which does not tell
        pass
    try:
        value = function()
    except (UserError, MemoryError):
        raise
    except Exception as error:
        raise mistake(
            "raised", where=where, expected=expected, found=f"{type(error).__name__}: {error}"[:200]
        ) from None
    if not isinstance(value, Environment):
        raise mistake("gave no environment", where=where, expected="an Environment", found=f"a {type(value).__name__}")
    return value


def _checked(environment: Environment, where: str) -> Environment:
    """Refuses what would fail at each call: no name, functions that cannot be called as the contract says."""
    if not isinstance(environment.name, str) or not environment.name.strip():
        raise mistake("has no name", where=where, expected='Environment(name="...")', found=repr(environment.name)[:40])
    wanted = {"generate": "seed, difficulty", "verify": "problem, response", "explain": "problem"}
    for field, names in wanted.items():
        function = getattr(environment, field)
        if field == "explain" and function is None:
            continue
        if not callable(function):
            found = f"a {type(function).__name__}"
            raise mistake(f"{field} is no function", where=where, expected=f"{field}({names})", found=found)
        try:
            inspect.signature(function).bind(*names.split(", "))
        except TypeError as error:
            raise mistake(f"{field} has another signature", where=where, expected=f"{field}({names})",
                          found=str(error)) from None  # fmt: skip
        except ValueError:
            continue
    return environment


def _file(path: str) -> Environment:
    from zaya_jax.environments.files import file_environment

    return file_environment(path)


def _verl(path: str) -> Environment:
    from zaya_jax.environments.verl import verl_environment

    return verl_environment(path)


def _reasoning_gym(name: str) -> Environment:
    from zaya_jax.environments.reasoning_gym import reasoning_gym_environment

    return reasoning_gym_environment(name)


def _rlve(name_and_path: str) -> Environment:
    from zaya_jax.environments.rlve import rlve_environment

    name, at, path = name_and_path.partition("@")
    if not at or not name or not path:
        raise mistake("names no checkout", where=f"environment rlve:{name_and_path}", expected=_FORMS["rlve"])
    return rlve_environment(name, path)


def _attempts(path_and_options: str) -> Environment:
    from zaya_jax.environments.aggregation import attempts_environment

    return attempts_environment(path_and_options)


_READERS = {"file": _file, "verl": _verl, "reasoning_gym": _reasoning_gym, "rlve": _rlve, "attempts": _attempts}
