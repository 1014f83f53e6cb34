"""The engine against one request at a time, whatever else it is doing."""

import dataclasses

import jax
import numpy as np
import pytest

from tests.sampling.models import prompt, replay, tiny, tokenizer
from zaya_jax.errors import UserError
from zaya_jax.sampling import slots
from zaya_jax.sampling.engine import Engine, compiled_programs
from zaya_jax.sampling.request import Request, Sampling

THINK = (5, 6)
SETTINGS = {"slots": 3, "capacity": 128, "chunk": 16, "burst": 7}


def engine(layout="stacked", **settings):
    return Engine(*tiny(layout), **{**SETTINGS, **settings})


def mixed(count=11):
    """Prompts of 1 to 60 tokens, answers of 1 to 40, drawn in every way."""
    rng = np.random.default_rng(0)
    ways = [Sampling(0.0), Sampling(), Sampling(0.8, top_p=0.7), Sampling(1.2, top_k=40, min_p=0.01)]
    lengths = rng.integers([1, 1], [60, 40], (count, 2))
    requests = [
        Request(f"r{i}", prompt(int(p), i), seed=i, sampling=ways[i % 4], max_new_tokens=int(n))
        for i, (p, n) in enumerate(lengths)
    ]
    # Some are cut at a prefix, some end at an id, some have their reasoning ended for them.
    requests[3] = dataclasses.replace(requests[3], prefix=len(requests[3].tokens) // 2)
    requests[5] = dataclasses.replace(requests[5], stop_ids=tuple(range(7, 60)))
    opened = (*requests[6].tokens, THINK[0])
    budgets = {"think_ids": THINK, "thinking_budget": 3, "answer_budget": 9}
    requests[6] = dataclasses.replace(requests[6], tokens=opened, **budgets)
    return requests


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
        answer = alone[request.id]
        if not answer.think_forced:
            replay(request, answer)
        assert len(answer.tokens) == request.max_new_tokens or request.stop_ids or answer.think_forced
    assert alone["r6"].think_forced and alone["r5"].finish_reason == "stop"


def test_company_order_and_slots_change_no_bit(alone):
    for order in (slice(None), slice(None, None, -1)):
        for answer in engine().run(mixed()[order]):
            equal(answer, alone[answer.id])


def test_known_prefixes_change_no_bit(alone):
    e = engine(known_bytes=2**30)
    e.run(mixed())
    read = e.stats.read_tokens
    again = e.run([dataclasses.replace(r, id=f"again {r.id}") for r in mixed()])
    assert e.stats.read_tokens == read, "everything is known"
    for answer, first in zip(again, mixed()):
        equal(dataclasses.replace(answer, id=first.id), alone[first.id])
    forgetful = engine(known_bytes=0)
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
        equal(answer, engine(known_bytes=0).run([request])[0])
        replay(request, answer)


def test_what_follows_is_forgotten_before_what_it_follows():
    """Room for three pieces of four: of the older prompt, the first one stays."""
    whole = engine(known_bytes=2**30)
    whole.run([Request("whole", prompt(32, 1), max_new_tokens=2)])
    e = engine(known_bytes=whole._known.held * 7 // 4)

    def known(seed):
        return e.run([Request("a", prompt(32, seed), max_new_tokens=2)])[0].known_tokens

    assert (known(1), known(2)) == (0, 0)
    assert (known(2), known(1)) == (32, 16)


def test_what_is_known_is_bounded_in_bytes():
    e = engine(known_bytes=50_000)
    e.run([Request(f"r{i}", prompt(3 + i % 60, i), max_new_tokens=2) for i in range(60)])
    held = sum(slots.nbytes((n.piece, n.logits_1V, n.routes_LT)) for n in e._known._nodes.values())
    assert 0 < held == e._known.held <= 50_000


def test_a_prompt_that_ends_where_another_went_on_is_read_there_again():
    """In the middle of a prompt no logits are computed."""
    e = engine(known_bytes=2**30)
    long = prompt(40, 7)
    e.run([Request("long", long, max_new_tokens=2)])
    short = e.run([Request("short", long[:32], max_new_tokens=5)])[0]
    assert short.known_tokens == 16
    equal(short, engine().run([Request("short", long[:32], max_new_tokens=5)])[0])
    assert e.run([Request("again", long[:32], max_new_tokens=5)])[0].known_tokens == 32
    assert e.run([Request("longer", (*long, 9), max_new_tokens=2)])[0].known_tokens == 32


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


@pytest.mark.parametrize("limit", [0, 1, 17])
def test_reading_little_at_a_time_changes_no_bit(alone, limit):
    e, read = engine(read_limit=limit), []
    for request in mixed():
        e.submit(request)
    done = {}
    while e.busy:
        before = e.stats.read_tokens
        decoding = bool(e._decoding())
        done |= {d.id: d.completion for d in e.step() if d.completion}
        read += [e.stats.read_tokens - before] if decoding else []
    assert max(read) <= limit + 16, "a piece more than the limit, if any row is decoding"
    for answer in done.values():
        equal(answer, alone[answer.id])


def test_cancelling_and_new_weights_in_the_middle_of_reading(alone):
    e = engine(read_limit=0, known_bytes=2**30)
    for request in mixed():
        e.submit(request)
    e.step()
    reading = [row.answer.request.id for row in e._rows if row is not None and row.pieces]
    assert reading and e.cancel(reading[0])
    e.update_weights(tiny()[1], version=1)
    done = {}
    while e.busy:
        done |= {d.id: d.completion for d in e.step() if d.completion}
    assert reading[0] not in done
    for answer in done.values():
        equal(answer, alone[answer.id])
    known = e._known.held
    e.update_weights(jax.tree.map(lambda x: 1.5 * x, tiny()[1]), version=2)
    assert known > 0 and e._known.held == 0
    request = dataclasses.replace(mixed()[0], id="new")
    fresh = Engine(tiny()[0], jax.tree.map(lambda x: 1.5 * x, tiny()[1]), **SETTINGS).run([request])[0]
    equal(e.run([request])[0], fresh)


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
    for name, value in [("slots", 1), ("burst", 0), ("chunk", 0), ("known_bytes", -1), ("read_limit", 0.5)]:
        with pytest.raises(UserError, match=f"{name}: out of range; expected a count of at least"):
            engine(**{name: value})
    with pytest.raises(UserError, match="steps: out of range"):
        engine().step(0)
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
        ({"tokens": (9, 5), "think_ids": THINK, "thinking_budget": 0, "answer_budget": 0}, "there is nothing to draw"),
    ]:
        with pytest.raises(UserError, match=said):
            Request("b", **{"tokens": (9,), **fields})


def test_run_wants_the_engine_for_itself_and_takes_all_or_nothing():
    e = engine()
    with pytest.raises(UserError, match="request a: two requests of one id"):
        e.run([Request("a", (9,), max_new_tokens=3), Request("a", (8,), max_new_tokens=3)])
    assert not e.busy
    e.submit(Request("a", (9,), max_new_tokens=3))
    with pytest.raises(UserError, match="the engine has other requests"):
        e.run([Request("b", (9,), max_new_tokens=3)])


def test_what_is_cancelled_while_run_waits_for_it_is_told():
    e = engine(burst=2)
    with pytest.raises(UserError, match="request b: cancelled while it was waited for"):
        e.run([Request(name, (9,), max_new_tokens=20) for name in "abc"], progress=lambda *_: e.cancel("b"))
    assert not e.busy


def test_an_interrupted_engine_says_so(monkeypatch):
    e = engine()
    e.submit(Request("a", (9,), max_new_tokens=3))

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("zaya_jax.sampling.decode.run_decode", interrupt)
    with pytest.raises(KeyboardInterrupt):
        e.step()
    with pytest.raises(UserError, match="interrupted in the middle of a step; make a new engine"):
        e.step()
    assert [request.id for request in e.snapshot()] == ["a"]


def test_programs_are_few_whatever_is_asked():
    jax.clear_caches()
    e = engine(known_bytes=0)
    lengths = np.random.default_rng(5).integers(1, 100, (40, 2))
    e.run(
        [Request(f"r{i}", prompt(int(p)), seed=i, max_new_tokens=1 + int(n) % 20) for i, (p, n) in enumerate(lengths)]
    )
    # Reading: a first piece, later ones of 16 columns and room for 32, 64 or 128 tokens, in the middle of a prompt and
    # at its end, there also of 4 columns; a first token; decoding.
    assert compiled_programs() <= 2 * (1 + 3) + 3 + 1 + 1
    before = compiled_programs()
    e.run(
        [Request(f"s{i}", prompt(i), sampling=Sampling(0.5, 0.9, 7, 0.1), max_new_tokens=9) for i in range(1, 100, 7)]
    )
    assert compiled_programs() == before


def test_a_conversation_goes_on_from_what_was_read():
    e = engine(known_bytes=2**30)
    first = prompt(40)
    answer = e.run([Request("one", first, max_new_tokens=9)])[0].tokens.tolist()
    second = (*first, *answer, *prompt(8, 5))
    found = e.run([Request("two", second, max_new_tokens=5)])[0]
    assert found.known_tokens == 32, "all whole pieces"
    equal(found, engine().run([Request("two", second, max_new_tokens=5)])[0])


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["stacked", "unstacked"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_company_changes_no_bit_of_optimized_programs(layout, dtype, optimized):
    model, variables = tiny(layout)
    model = dataclasses.replace(model, execution=dataclasses.replace(model.execution, dtype=dtype))
    single = {r.id: Engine(model, variables, **SETTINGS).run([r])[0] for r in mixed()}
    for answer in Engine(model, variables, **SETTINGS).run(mixed()[::-1]):
        equal(answer, single[answer.id])
