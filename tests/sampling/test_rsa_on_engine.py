"""Markovian RSA on the engine against a round as one program."""

import dataclasses

import numpy as np

from tests.sampling.models import tiny
from zaya_jax.sampling.engine import Engine
from zaya_jax.sampling.markovian_rsa import Question, Search, Settings
from zaya_jax.sampling.rsa_round import run_round, run_rounds
from zaya_jax.sampling.rsa_run import bill, run_searches
from zaya_jax.text.aggregation import Pieces

START, END = 5, 6
PIECES = Pieces((20, 21, 22, 30, START), ((20, 21, 22, 40, 41), (42,), (43, START)), prefix=3)
QUESTION = Question("p", PIECES, stop_ids=(4,), think_ids=(START, END))
SETTINGS = Settings(n=4, c=2, t=2, beta=12, tau=5, answer_budget=6, seed=3)


def on_engine(settings=SETTINGS, question=QUESTION, **more):
    model, variables = tiny()
    engine = Engine(model, variables, **{"slots": 3, "capacity": 64, "chunk": 16, "burst": 8, **more})
    search = Search(question, settings, context=model.config.max_position_embeddings)
    list(run_searches(engine, [search]))
    return search, engine


def test_a_round_as_one_program_draws_what_the_engine_draws():
    search, _ = on_engine()
    before = run_round._cache_size()
    rounds = run_rounds(*tiny(), QUESTION, SETTINGS)
    assert run_round._cache_size() - before <= 3
    for index, found in enumerate(rounds):
        for candidate in search.population(index):
            row, drawn = candidate.index, int(found.drawn_N[candidate.index])
            np.testing.assert_array_equal(np.asarray(found.tokens_NT)[row, :drawn], candidate.completion.tokens)
            own = np.asarray(found.logprob_NT)[row, :drawn]
            np.testing.assert_allclose(own, candidate.completion.logprobs_model, atol=2e-5)
            tail = np.asarray(found.tails.tokens_NX)[row, : int(found.tails.count_N[row])]
            np.testing.assert_array_equal(tail, candidate.carried)
    lengths = [len(c.completion.tokens) for c in search.candidates.values()]
    assert len(set(lengths)) > 1, "some end by themselves"


def test_rounds_share_what_they_read():
    search, engine = on_engine()
    costs = bill(search)
    assert costs[0].prefilled == len(PIECES.direct), "N prompts of round 0 cost one"
    assert costs[1].reused >= 4 * PIECES.prefix, "and those behind it begin with the problem"
    assert sum(b.prefilled for b in costs) == engine.stats.read_tokens
    assert sum(b.reused for b in costs) == engine.stats.known_tokens


def test_slots_and_other_problems_change_nothing():
    alone, _ = on_engine()
    model, variables = tiny()
    engine = Engine(model, variables, slots=3, capacity=64, chunk=16, burst=8)
    searches = [Search(dataclasses.replace(QUESTION, id=name), SETTINGS, context=128) for name in ("a", "p", "b")]
    list(run_searches(engine, searches))
    for key, candidate in alone.candidates.items():
        np.testing.assert_array_equal(searches[1].candidates[key].completion.tokens, candidate.completion.tokens)
