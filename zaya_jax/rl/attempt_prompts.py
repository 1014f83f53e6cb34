"""Prompts with attempts in tokens: those that a round of Markovian RSA would read, token by token."""

from __future__ import annotations

from zaya_jax.environments.aggregation import Aggregation
from zaya_jax.environments.attempts import Attempt
from zaya_jax.errors import mistake
from zaya_jax.text.aggregation import cut_prompts, load_wording
from zaya_jax.text.tokenizer import Tokenizer


def aggregation_tokens(tokenizer: Tokenizer, given: Aggregation, where: str) -> tuple[int, ...]:
    """The prompt up to where reasoning begins.

    Args:
        where: names the problem in errors.

    Raises:
        UserError: attempts are in tokens of another tokenizer.
    """
    pieces = cut_prompts(tokenizer, given.prompt, load_wording(given.wording), len(given.attempts))
    return pieces.around([_tokens(tokenizer, attempt, where) for attempt in given.attempts])


def _tokens(tokenizer: Tokenizer, attempt: Attempt, where: str) -> tuple[int, ...]:
    """An attempt's own tokens; its text is cut into some where nobody knows them."""
    if attempt.tokens is None:
        return tuple(tokenizer.encode(attempt.text, special=False))
    if (found := tokenizer.decode(attempt.tokens)) != attempt.text:
        expected, fix = repr(attempt.text[-40:]), "leave tokens out of the file: its texts are cut anew then"
        raise mistake(
            "attempts in tokens of another tokenizer", where=where, expected=expected, found=repr(found[-40:]), fix=fix
        )
    return attempt.tokens
