"""What a model is asked, by the kind of problem: the `.txt` files beside this one, in our own words.

A field is `{{name}}`; everything else, braces of LaTeX too, stays as it is. The problem comes first, then the form
that the final answer must have.
"""

from __future__ import annotations

import pathlib
import re
from collections.abc import Mapping

from zaya_jax.errors import mistake

FIELDS = {
    "integer": ("problem",),
    "latex": ("problem",),
    "exact": ("problem",),
    "choice": ("problem", "choices", "letters"),
    "code": ("problem",),
    "code_starter": ("problem", "starter_code"),
    "instructions": ("problem",),
    "chat": ("problem",),
}
_FIELD = re.compile(r"\{\{\s*(.*?)\s*\}\}")


def read_template(name: str, directory: pathlib.Path | str | None = None) -> str:
    """A template, with its fields checked.

    Args:
        name: of `FIELDS`.
        directory: of one's own templates, `NAME.txt`; None for ours.

    Raises:
        UserError: it cannot be read, has a field that there is no value for, or lacks one of its fields.
    """
    path = pathlib.Path(directory or pathlib.Path(__file__).parent) / f"{name}.txt"
    try:
        template = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise mistake("cannot be read", where=path, expected="a prompt", found=error.strerror or error) from None
    except UnicodeDecodeError:
        raise mistake("is not UTF-8", where=path) from None
    given, fields = _FIELD.findall(template), FIELDS[name]
    for field in given:
        if field not in fields:
            raise mistake(f"unknown field {{{{{field}}}}}", where=path, expected=f"one of {_shown(fields)}")
    for field in fields:
        if field not in given and field != "letters":  # a wording may do without the list of letters
            raise mistake(f"no {{{{{field}}}}}", where=path, expected=f"a prompt with {_shown(fields)}")
    return template


def fill(template: str, values: Mapping[str, str]) -> str:
    """The template with its fields' values, in one pass: what looks like a field within a value stays.

    Raises:
        UserError: a field has no value.
    """

    def value(match: re.Match[str]) -> str:
        if match[1] not in values:
            raise mistake(f"no value for {match[0]}", expected=f"one of {_shown(values)}")
        return values[match[1]]

    return _FIELD.sub(value, template)


def _shown(fields) -> str:
    return ", ".join(f"{{{{{field}}}}}" for field in fields)
