"""A round of Markovian RSA as one program: prompts put together, read, and continued, tails cut, all on the device.

For one problem of fixed shapes, without an engine. All candidates of a round wait for the slowest one here, and every
prompt is read whole; what is drawn is what the engine draws.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from zaya_jax.errors import mistake
from zaya_jax.model import Zaya
from zaya_jax.model.layout import Variables
from zaya_jax.sampling import decode
from zaya_jax.sampling.decode import bucket
from zaya_jax.sampling.markovian_rsa import (
    Question,
    Settings,
    check_room,
    draw_parents,
    longest_prompt,
    make_request,
    most_new_tokens,
)
from zaya_jax.sampling.tails import Tails, assemble, cut_tails, make_template


class Round(NamedTuple):
    """What a round has drawn for N candidates.

    Attributes:
        tails: what they carry on.
        tokens_NT, logprob_NT: drawn tokens and their log-probabilities under the model; `drawn_N` a row count.
        drawn_N: int32.
        finish_N: int8, as `decode.State.finish_B`.
    """

    tails: Tails
    tokens_NT: jax.Array
    logprob_NT: jax.Array
    drawn_N: jax.Array
    finish_N: jax.Array


@functools.partial(jax.jit, static_argnames=("model", "width", "columns", "tau"))
def run_round(model: Zaya, variables: Variables, batch, template, tails, parents_NC, width, columns, tau) -> Round:
    """One round.

    Args:
        batch: what is asked for each candidate (`decode.make_batch`).
        template: around the tails.
        tails: of the round before; of one candidate without tokens in round 0.
        parents_NC: whose tails each candidate reads.
        width: tokens that a prompt may have.
        columns: tokens that a candidate may draw.
        tau: tokens of a tail.
    """
    tokens_NP, count_N = assemble(template, tails, parents_NC, width)
    state, first, _ = decode.prefill(model, variables, batch, tokens_NP, count_N, None, capacity=width + columns)
    state, tape = decode.decode(model, variables, batch, state, columns - 1, columns - 1)
    tokens_NT, logprob_NT = (
        jnp.concatenate([getattr(part, name) for part in (first, tape)], axis=1)
        for name in ("token_BN", "logprob_model_BN")
    )
    tails = cut_tails(tokens_NT, state.step_B, batch.think_B2[0], batch.stop_ids_BS, tau)
    return Round(tails, tokens_NT, logprob_NT, state.step_B, state.finish_B)


def run_rounds(model: Zaya, variables: Variables, question: Question, settings: Settings) -> list[Round]:
    """The rounds 0 to T of a search, each a call of one program; of three programs in all at most.

    Carries tails only (`settings.carry`), and neither probes nor makes a final call. The model has marks of reasoning.

    Raises:
        UserError: the settings or the question ask for more than that, or the longest prompt would leave no room in the
            model's context.
    """
    _check(question, settings)
    check_room(question, settings, model.config.max_position_embeddings)
    tails = Tails(np.zeros((1, settings.tau), np.int32), np.zeros(1, np.int32))
    direct, between = make_template([question.pieces.direct]), make_template(question.pieces.between)
    rounds = []
    for index in range(settings.t + 1):
        parents = np.array(draw_parents(settings, question.id, index), np.int32).reshape(settings.n, -1)
        longest = longest_prompt(question, settings) if index else len(question.pieces.direct)
        prompt = question.pieces.between[0] + question.pieces.between[-1] if index else question.pieces.direct
        batch = decode.make_batch([make_request(question, settings, index, i, prompt) for i in range(settings.n)])
        rounds.append(
            run_round(
                model,
                variables,
                batch,
                between if index else direct,
                tails,
                parents,
                width=bucket(longest),
                columns=bucket(most_new_tokens(question, settings, index)),
                tau=settings.tau,
            )
        )
        tails = rounds[-1].tails
    return rounds


def _check(question: Question, settings: Settings) -> None:
    wrong = {
        'carry="answer"': settings.carry != "tail",
        "probe_answers": settings.probe_answers,
        "final_call": settings.final_call,
        "a model without marks of reasoning": question.think_ids is None,
    }
    if found := [name for name, there in wrong.items() if there]:
        raise mistake("rounds of fixed shape do not have it", found=found[0], fix="run_searches has")
