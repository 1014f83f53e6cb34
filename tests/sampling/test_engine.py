"""The engine against one request at a time, whatever else it is doing."""

import dataclasses

import jax
import numpy as np
import pytest

from tests.sampling.models import prompt, replay, tiny, tokenizer
from zaya_jax.errors import UserError
from zaya_jax.sampling.engine import Engine
from zaya_jax.sampling.request import Request, Sampling

THINK = (5, 6)
SETTINGS = {"slots": 3, "capacity": 128, "chunk": 16, "burst": 7}


def engine(layout="stacked", **settings):
    return Engine(*tiny(layout), **{**SETTINGS, **settings})


def mixed(count=11):
    """Prompts of 1 to 70 tokens, answers of 1 to 40, drawn in every way."""
    rng = np.random.default_rng(0)
    ways = [Sampling(0.0), Sampling(), Sampling(0.8, top_p=0.7), Sampling(1.2, top_k=40, min_p=0.01)]
    lengths = rng.integers([1, 1], [70, 40], (count, 2))
    return [
        Request(f"r{i}", prompt(int(p), i), seed=i, sampling=ways[i % 4], max_new_tokens=int(n))
        for i, (p, n) in enumerate(lengths)
    ]


@pytest.fixture(scope="module")
def alone():
    """Each request answered with nobody else there."""
    return {r.id: engine().run([r])[0] for r in mixed()}


def equal(a, b):
    """To the last bit."""
    assert (a.id, a.finish_reason, a.think_end, a.think_forced) == (b.id, b.finish_reason, b.think_end, b.think_forced)
    for field in ("tokens", "logprobs_model", "logprobs_sampling", "routes_LT"):
        np.testing.assert_array_equal(getattr(a, field), getattr(b, field), err_msg=field)


def test_answers_are_what_full_forward_passes_say(alone):
    for request in mixed():
        replay(request, alone[request.id])
        assert len(alone[request.id].tokens) == request.max_new_tokens


def test_company_order_and_slots_change_no_bit(alone):
    for order in (slice(None), slice(None, None, -1)):
        for answer in engine().run(mixed()[order]):
            equal(answer, alone[answer.id])


def test_known_prefixes_change_no_bit(alone):
    e = engine(known_tokens=1000)
    e.run(mixed())
    read = e.stats.read_tokens
    again = e.run([dataclasses.replace(r, id=f"again {r.id}") for r in mixed()])
    assert e.stats.read_tokens == read, "everything is known"
    for answer, first in zip(again, mixed()):
        equal(dataclasses.replace(answer, id=first.id), alone[first.id])
    forgetful = engine(known_tokens=0)
    for answer in forgetful.run(mixed()):
        equal(answer, alone[answer.id])
    assert forgetful.stats.known_tokens == 0


def family(count=6):
    """Requests of one prompt of three pieces, and of one that goes on from it."""
    head = prompt(40, 7)
    return [Request(f"f{i}", head, seed=i, max_new_tokens=5) for i in range(count)] + [
        Request("longer", (*head, *prompt(9, 8)), max_new_tokens=5, prefix=40),
        Request("other", (*head, *prompt(12, 9)), max_new_tokens=5, prefix=40),
    ]


def test_a_shared_prefix_is_read_once():
    e = engine()
    answers = e.run(family())
    assert e.stats.read_tokens == 40 + 9 + 12
    assert e.stats.known_tokens == 7 * 40
    assert len({tuple(a.tokens.tolist()) for a in answers[:6]}) == 6
    for request, answer in zip(family(), answers):
        equal(answer, engine(known_tokens=0).run([request])[0])
        replay(request, answer)


def test_what_follows_is_forgotten_before_what_it_follows():
    e = engine(known_tokens=50)
    e.run([family()[0], Request("long", prompt(40, 1), max_new_tokens=2)])
    read = e.stats.read_tokens
    e.run([Request("again", prompt(40, 1), max_new_tokens=2)])
    assert e.stats.read_tokens == read
    e.run([Request("first", family()[0].tokens, max_new_tokens=2)])
    assert e.stats.read_tokens - read in (24, 40)  # its last pieces at least


def test_a_step_reads_no_more_than_its_limit(alone):
    e = engine(read_limit=16)
    long, short = Request("long", prompt(70, 5), max_new_tokens=3), mixed()[1]
    e.submit(long)
    assert e.step() == [] and e.stats.read_tokens == 16, "though nobody is being answered"
    assert e.cancel("long") and not e.busy
    e.submit(short)
    answers = {d.id: d.completion for _ in range(60) for d in (e.step() if e.busy else ()) if d.completion}
    equal(answers["r1"], alone["r1"])
    equal(engine(read_limit=16).run([long])[0], engine().run([long])[0])


def test_new_weights_take_effect_at_once_and_forget_what_was_known():
    model, variables = tiny()
    e = engine(burst=4)
    request = Request("a", prompt(9), sampling=Sampling(0.0), max_new_tokens=12)
    e.submit(request)
    drawn = [*e.step(), *e.step()]
    other = jax.tree.map(lambda x: x * 1.3, variables)
    e.update_weights(other, version=1)
    while e.busy:
        drawn += e.step()
    whole = drawn[-1].completion
    assert whole.versions_T.tolist() == [0] * 9 + [1] * 3
    old = engine().run([request])[0]
    np.testing.assert_array_equal(whole.tokens[:9], old.tokens[:9])
    assert e.run([request])[0].versions_T.tolist() == [1] * 12
    equal(e.run([request])[0], dataclasses.replace(Engine(model, other, **SETTINGS).run([request])[0]))


def test_what_a_snapshot_holds_is_answered_the_same(alone):
    e = engine()
    for request in mixed():
        e.submit(request)
    done = {d.id: d.completion for _ in range(4) for d in e.step() if d.completion}
    left = e.snapshot()
    assert 0 < len(done) < 11 and [r.id for r in left] == [r.id for r in mixed() if r.id not in done]
    for answer in [*done.values(), *engine().run(left)]:
        equal(answer, alone[answer.id])


def test_cancelled_requests_leave_no_trace(alone):
    e = engine()
    for request in mixed():
        e.submit(request)
    done = {d.id: d.completion for d in e.step() if d.completion}
    assert e.cancel("r1") and e.cancel("r9") and not e.cancel("nobody")
    while e.busy:
        done |= {d.id: d.completion for d in e.step() if d.completion}
    assert set(done) == {r.id for r in mixed()} - {"r1", "r9"}
    for answer in done.values():
        equal(answer, alone[answer.id])


def thinking(budget=None, answer=None, **more):
    budgets = {"think_ids": THINK, "thinking_budget": budget, "answer_budget": answer}
    return Request("t", (*prompt(5), THINK[0]), **budgets, **more)


def test_a_spent_budget_of_reasoning_forces_its_end():
    answer = engine().run([thinking(4, 3, max_new_tokens=20)])[0]
    assert answer.tokens[4] == THINK[1] and len(answer.tokens) == 8 and answer.finish_reason == "length"
    assert (answer.think_end, answer.think_forced) == (4, True)
    assert answer.logprobs_sampling[4] == 0 and answer.logprobs_model[4] < 0
    free = engine().run([thinking(max_new_tokens=4)])[0]
    np.testing.assert_array_equal(free.tokens, answer.tokens[:4])
    # What follows is what the model says behind the mark.
    said = engine().run([thinking(4, 3, max_new_tokens=20, sampling=Sampling(0.0))])[0].tokens
    behind = Request("t", (*thinking().tokens, *said[:5].tolist()), sampling=Sampling(0.0), max_new_tokens=3)
    np.testing.assert_array_equal(engine().run([behind])[0].tokens, said[5:])


def test_without_an_answer_the_budget_ends_the_reasoning():
    answer = engine().run([thinking(4, 0, max_new_tokens=20)])[0]
    assert len(answer.tokens) == 4 and answer.finish_reason == "length" and answer.think_end == -1


@pytest.mark.parametrize("layout", ["unstacked", "layer"])
def test_other_layouts_say_the_same(alone, layout):
    model, variables = tiny("unstacked")
    if layout == "layer":
        model = dataclasses.replace(model, execution=dataclasses.replace(model.execution, programs="layer"))
    for answer in Engine(model, variables, **SETTINGS).run(mixed()):
        expected = alone[answer.id]
        np.testing.assert_array_equal(answer.tokens, expected.tokens)
        np.testing.assert_array_equal(answer.routes_LT, expected.routes_LT)
        np.testing.assert_allclose(answer.logprobs_model, expected.logprobs_model, atol=1e-5)


def test_stop_strings_and_ids(alone):
    text = tokenizer().decode(alone["r1"].tokens)
    assert len(text) > 4
    stop = text[3]
    ended = dataclasses.replace(mixed()[1], stop_strings=(stop,))
    answer = engine(tokenizer=tokenizer()).run([ended])[0]
    assert answer.text == text[: text.index(stop)] and answer.finish_reason == "stop"
    by_id = dataclasses.replace(mixed()[1], stop_ids=(int(alone["r1"].tokens[3]), *range(1, 12)))
    assert engine().run([mixed()[2], by_id])[1].finish_reason == "stop"


@pytest.mark.parametrize(
    "request_, said",
    [
        (Request("a", prompt(100), max_new_tokens=100), "leave the context"),
        (Request("a", (), max_new_tokens=1), "empty prompt"),
        (Request("a", (5,), stop_strings=("x",), max_new_tokens=1), "stop strings need a tokenizer"),
        (Request("a", (5,), think_ids=(5, 999), max_new_tokens=1), "outside of the vocabulary"),
    ],
)
def test_mistakes_are_told_before_anything_is_read(request_, said):
    e = engine()
    with pytest.raises(UserError, match=said):
        e.run([Request("good", (9,), max_new_tokens=3), request_])
    assert not e.busy


def test_more_mistakes():
    with pytest.raises(UserError, match="slots: out of range"):
        engine(slots=1)
    e = engine(capacity=16)
    with pytest.raises(UserError, match="the engine has no room for it; expected at most 16 tokens"):
        e.submit(Request("a", prompt(10), max_new_tokens=10))
    e.submit(Request("a", (9,), max_new_tokens=3))
    with pytest.raises(UserError, match="an unfinished request has this id"):
        e.submit(Request("a", (8,), max_new_tokens=3))
    for fields, said in [
        ({"thinking_budget": 3}, "needs the marks"),
        ({"think_ids": (5, 6), "answer_budget": -1}, "expected a count, or None"),
        ({"think_ids": (5, 5)}, "two different ids"),
        ({"prefix": 4}, "expected 0 to 1"),
    ]:
        with pytest.raises(UserError, match=said):
            Request("b", (9,), **fields)
