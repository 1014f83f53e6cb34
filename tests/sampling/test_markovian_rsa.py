"""Markovian RSA against hand-worked cases, on a model that is a table."""

import dataclasses
import itertools

import numpy as np
import pytest

from tests.sampling.scripted import Scripted
from zaya_jax.errors import UserError
from zaya_jax.sampling.markovian_rsa import Question, Search, Settings, candidate_seed, draw_parents
from zaya_jax.sampling.rsa_run import bill, run_searches
from zaya_jax.text.aggregation import Pieces

EOS, START, END = 1, 2, 3
HEAD, FOOT = (10, 11), (12,)  # the problem, and what asks for an answer
# Direct: HEAD FOOT <think>. Two attempts: HEAD 20 TAIL 21 TAIL 22 <think>.
PIECES = Pieces((*HEAD, *FOOT, START), ((*HEAD, 20), (21,), (22, START)), prefix=2)
ONE = Pieces((*HEAD, *FOOT, START), ((*HEAD, 20), (22, START)), prefix=2)
SMALL = Settings(n=3, c=2, t=2, beta=4, tau=2, answer_budget=3)


def question(id="p", pieces=PIECES, think_ids=(START, END)):
    return Question(id, pieces, stop_ids=(EOS,), think_ids=think_ids)


def place(request):
    """Round and index of a request, from its id."""
    _, round, index, *rest = request.id.split("/")
    return int(round), int(index), bool(rest)


def thinks_long(request):
    """Thinks 100 r + 10 i + 0, 1, 2, ... without an end; says 90 + i when it has to answer."""
    round, index, probe = place(request)
    if probe:
        return [80 + index, EOS]
    thought = [1000 * (round + 1) + 100 * index + k for k in range(30)]
    budget = request.thinking_budget
    return thought[:budget] + [END, 90 + index, EOS, *thought] if budget else thought


def run(settings, wants=thinks_long, questions=None, slots=4, **more):
    """The searches, and the model that was asked."""
    model = Scripted(wants, slots)
    searches = [Search(q, settings, context=200) for q in (questions or [question()])]
    complete = list(run_searches(model, searches, **more))
    assert all(search.done for search in searches)
    return searches, model, complete


def test_every_round_by_hand():
    (search,), model, complete = run(SMALL)
    # Round 0: three prompts, the same; reasoning alone, cut at beta = 4; the last two tokens are carried.
    first = search.population(0)
    assert [c.request.tokens for c in first] == [(10, 11, 12, START)] * 3
    assert [c.completion.tokens.tolist() for c in first] == [
        [1000, 1001, 1002, 1003],
        [1100, 1101, 1102, 1103],
        [1200, 1201, 1202, 1203],
    ]
    assert [c.carried.tolist() for c in first] == [[1002, 1003], [1102, 1103], [1202, 1203]]
    # Round 1: each reads two different tails of round 0; reasoning alone again.
    for candidate in search.population(1):
        a, b = candidate.parents
        assert a != b
        tail_a, tail_b = first[a].carried.tolist(), first[b].carried.tolist()
        assert candidate.request.tokens == (10, 11, 20, *tail_a, 21, *tail_b, 22, START)
        base = 2000 + 100 * candidate.index
        assert candidate.completion.tokens.tolist() == [base, base + 1, base + 2, base + 3]
        assert candidate.carried.tolist() == [base + 2, base + 3]
    # Round 2, the last: reads round 1, thinks to its budget, is made to stop, and answers.
    second = search.population(1)
    for candidate in search.population(2):
        tails = [second[parent].carried.tolist() for parent in candidate.parents]
        assert candidate.request.tokens == (10, 11, 20, *tails[0], 21, *tails[1], 22, START)
        base = 3000 + 100 * candidate.index
        drawn = [base, base + 1, base + 2, base + 3, END, 90 + candidate.index, EOS]
        assert candidate.completion.tokens.tolist() == drawn
        assert candidate.completion.think_forced and candidate.completion.think_end == 4
    assert len(complete) == len(model.asked) == 9
    assert [(b.generated, b.prefilled, b.carried, b.probed) for b in bill(search)] == [
        (12, 12, 0, 0),
        (12, 30, 12, 0),
        (21, 30, 12, 0),
    ]


def test_t_counts_rounds_of_aggregation():
    """The report's T: T = 1 is one round behind the first, N (T + 1) candidates. A public port counts round 0 too."""
    for t in range(4):
        settings = dataclasses.replace(SMALL, t=t)
        (search,), model, _ = run(settings)
        assert len(model.asked) == settings.generations == 3 * (t + 1)
        assert [len(search.population(round)) for round in range(t + 2)] == [3] * (t + 1) + [0]
        answered = [any(90 <= token < 100 for token in c.completion.tokens) for c in search.candidates.values()]
        assert answered == [False] * 3 * t + [True] * 3, "answers come from round T alone"


def test_parallel_sampling_is_t_0():
    (search,), _, _ = run(dataclasses.replace(SMALL, t=0))
    assert [c.parents for c in search.population(0)] == [()] * 3
    assert {c.request.tokens for c in search.population(0)} == {(10, 11, 12, START)}
    assert [c.completion.tokens.tolist()[-2:] for c in search.population(0)] == [[90, EOS], [91, EOS], [92, EOS]]


def test_recursive_self_aggregation_is_tau_beta():
    (search,), _, _ = run(dataclasses.replace(SMALL, tau=4, t=1))
    for candidate in search.population(0):
        assert candidate.carried.tolist() == candidate.completion.tokens.tolist()
    for candidate in search.population(1):
        assert len(candidate.request.tokens) == 2 + 1 + 4 + 1 + 4 + 2
        assert candidate.carried.tolist() == candidate.completion.tokens.tolist()[:4], "the answer is not carried"


def test_own_tails_go_on_from_themselves():
    settings = dataclasses.replace(SMALL, c=1, parents="own", t=3)
    (search,), _, _ = run(settings, questions=[question(pieces=ONE)])
    for candidate in itertools.chain(*(search.population(round) for round in (1, 2, 3))):
        assert candidate.parents == (candidate.index,)
        tail = search.population(candidate.round - 1)[candidate.index].carried.tolist()
        assert candidate.request.tokens == (10, 11, 20, *tail, 22, START)


def test_own_and_others():
    settings = dataclasses.replace(SMALL, n=5, c=3, parents="own")
    for index, parents in enumerate(draw_parents(settings, "p", 1)):
        assert parents[0] == index and len(set(parents)) == 3


def test_reasoning_that_ends_early_is_carried_without_its_mark():
    def wants(request):
        round, index, _ = place(request)
        return [50 + index, END, 60, EOS] if round == 0 else thinks_long(request)

    (search,), _, _ = run(SMALL, wants)
    first = search.population(0)
    assert [c.completion.tokens.tolist() for c in first] == [[50, END], [51, END], [52, END]]
    assert [c.carried.tolist() for c in first] == [[50], [51], [52]]
    assert [len(c.request.tokens) for c in search.population(1)] == [2 + 1 + 1 + 1 + 1 + 2] * 3


def test_text_that_ends_inside_the_reasoning_is_carried_without_its_end():
    (search,), _, _ = run(SMALL, lambda r: [50, 51, 52, EOS] if place(r)[0] == 0 else thinks_long(r))
    assert [c.carried.tolist() for c in search.population(0)] == [[51, 52]] * 3


def test_answers_are_carried_of_those_who_finished():
    def wants(request):
        round, index, _ = place(request)
        return [50, END, 70 + index, 71, EOS] if round == 0 and index < 2 else thinks_long(request)

    (search,), _, _ = run(dataclasses.replace(SMALL, carry="answer", t=1), wants)
    first = search.population(0)
    assert [c.carried.tolist() for c in first] == [[70, 71], [71, 71], [1202, 1203]]
    assert first[2].completion.tokens.tolist() == [1200, 1201, 1202, 1203], "nothing is forced before the last round"
    assert search.population(1)[0].completion.think_forced


def test_a_candidate_that_finished_and_said_nothing_is_carried_by_its_tail():
    (search,), _, _ = run(dataclasses.replace(SMALL, carry="answer", t=1), lambda r: [50, 51, 52, END, EOS, *[7] * 9])
    assert [c.carried.tolist() for c in search.population(0)] == [[51, 52]] * 3


def test_requests_of_others_are_passed_over():
    model = Scripted(thinks_long, slots=2)
    for name in ("x/0/0", "y/0/0", "z/0/0"):
        model.submit(dataclasses.replace(run(dataclasses.replace(SMALL, t=0))[1].asked[0], id=name))
    search = Search(question(), SMALL, context=200)
    assert len(list(run_searches(model, [search]))) == 9 and search.done


def test_probes_are_looked_at_and_carried_nowhere():
    plain, _, _ = run(SMALL)
    (search,), model, complete = run(dataclasses.replace(SMALL, probe_answers=True))
    assert len(model.asked) == 9 + 6 and len(complete) == 9
    for round in (0, 1):
        for candidate in search.population(round):
            assert candidate.probe.tokens.tolist() == [80 + candidate.index, EOS]
    assert [c.probe for c in search.population(2)] == [None] * 3
    asked = {request.id: request for request in model.asked}
    first = search.population(0)[1]
    assert asked["p/0/1/probe"].tokens == (*first.request.tokens, *first.completion.tokens.tolist(), END)
    for key, candidate in search.candidates.items():
        assert candidate.carried.tolist() == plain[0].candidates[key].carried.tolist()
        assert candidate.request == plain[0].candidates[key].request
    assert [b.probed for b in bill(search)] == [3 * 2, 3 * 2, 0]


def test_the_final_call_reads_the_last_round():
    (search,), model, _ = run(dataclasses.replace(SMALL, final_call=True))
    (final,) = search.population(3)
    assert len(model.asked) == 10 and len(final.parents) == 2
    tails = [search.population(2)[parent].carried.tolist() for parent in final.parents]
    assert final.request.tokens == (10, 11, 20, *tails[0], 21, *tails[1], 22, START)
    assert final.completion.tokens.tolist()[-2:] == [90, EOS]


def test_a_model_without_marks_says_reasoning_only():
    bare = Pieces((*HEAD, *FOOT), ((*HEAD, 20), (21,), (22,)), prefix=2)

    def wants(request):
        round, index, _ = place(request)
        return [100 * round + 50 + index, 5, 6, EOS] if round < 2 else [7] * 5 + [EOS]

    (search,), _, _ = run(SMALL, wants, [question(pieces=bare, think_ids=None)])
    assert [c.carried.tolist() for c in search.population(0)] == [[5, 6]] * 3
    assert [c.completion.tokens.tolist() for c in search.population(2)] == [[7] * 5 + [EOS]] * 3


def test_parents_are_drawn_evenly_and_without_replacement():
    settings = dataclasses.replace(SMALL, n=6, c=3)
    drawn = [draw_parents(settings, f"problem {p}", round) for p in range(200) for round in (1, 2)]
    flat = [parents for population in drawn for parents in population]
    assert all(len(set(parents)) == 3 for parents in flat)
    counts = np.bincount(np.array(flat).ravel(), minlength=6)
    expected = 2400 * 3 / 6
    assert abs(counts - expected).max() < 5 * np.sqrt(expected)
    assert len({tuple(population) for population in drawn}) > 390, "no two rounds or problems share their draw"
    assert drawn == [draw_parents(settings, f"problem {p}", round) for p in range(200) for round in (1, 2)]


def test_seeds_differ_in_everything_that_names_a_candidate():
    names = itertools.product((0, 1), ("a", "b"), range(3), range(4), (False, True))
    seeds = [candidate_seed(*name) for name in names]
    assert len(set(seeds)) == len(seeds)


def test_problems_do_not_wait_for_each_other():
    """Three problems over two slots: each search is what it is alone, and no step leaves a slot empty but the last."""
    questions = [question(name) for name in "abc"]
    alone = [run(SMALL, questions=[q])[0][0] for q in questions]
    searches, model, _ = run(SMALL, questions=questions, slots=2)
    assert sum(model.used) == 27 and sorted(model.used[: -2 * 3]) == [2] * (len(model.used) - 6)
    assert model.used.count(1) <= 3, "no slot is empty but in the rounds of the last problem alone"
    for search, other in zip(searches, alone):
        assert {k: c.request for k, c in search.candidates.items()} == {
            k: c.request for k, c in other.candidates.items()
        }
    assert len(model.asked) == 27


def test_an_interrupted_search_goes_on_where_it_was():
    settings = dataclasses.replace(SMALL, probe_answers=True)
    (whole,), _, _ = run(settings)
    keys = sorted(whole.candidates)
    for known in ([], keys[:2], keys[:3], keys[:5], [*keys[:3], keys[4]], keys[:8], keys):
        done = {key: (whole.candidates[key].completion, whole.candidates[key].probe) for key in known}
        (search,), model, complete = run(settings, known={"p": done})
        assert {k: c.request for k, c in search.candidates.items()} == {
            k: c.request for k, c in whole.candidates.items()
        }
        assert {(c.round, c.index) for _, c in complete} == set(keys) - set(known)
        assert len([r for r in model.asked if not place(r)[2]]) == 9 - len(known)


@pytest.mark.parametrize(
    "wrong, said",
    [
        ({"tau": 5}, "tau: a tail longer than the reasoning; expected at most beta = 4; found 5"),
        ({"c": 4}, "c: more tails than candidates; expected at most n = 3; found 4"),
        ({"n": 0}, "n: out of range; expected an integer of at least 1; found 0"),
        ({"t": -1}, "t: out of range"),
        ({"beta": 2.5}, "beta: out of range"),
        ({"parents": "mine"}, "parents: unknown choice; expected uniform or own"),
        ({"carry": "all"}, "carry: unknown choice; expected tail or answer"),
    ],
)
def test_mistaken_settings(wrong, said):
    with pytest.raises(UserError, match=said):
        dataclasses.replace(SMALL, **wrong)
    assert dataclasses.replace(SMALL, t=0, c=4).generations == 3, "nothing is aggregated"


def test_a_problem_longer_than_the_context_is_named():
    needed = max(4 + 4 + 1 + 3, (2 + 1) + 2 + 1 + 2 + 2 + 4 + 1 + 3)
    Search(question(), SMALL, context=needed)
    with pytest.raises(
        UserError, match=f"problem p: longer than the context; expected at most {needed - 1} tokens; found {needed}"
    ):
        Search(question(), SMALL, context=needed - 1)
    with pytest.raises(UserError, match="with its prompt and what is drawn"):
        Search(question(), dataclasses.replace(SMALL, t=0), context=11)
