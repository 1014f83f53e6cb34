"""Generation against full forward passes without a cache, and against itself in other forms."""

import dataclasses

import jax
import numpy as np
import pytest

from tests.sampling.models import forward, log_softmax, prompt, replay, tiny, tokenizer
from tests.sampling.test_logits import kept_oracle
from zaya_jax.errors import UserError
from zaya_jax.sampling import decode, run
from zaya_jax.sampling.generate import Session, generate, stream
from zaya_jax.sampling.request import Request, Sampling

GREEDY = Sampling(temperature=0.0)
MIXED = [
    Request("greedy", prompt(7), sampling=GREEDY, max_new_tokens=20),
    Request("free", prompt(1), seed=1, max_new_tokens=20),
    Request("top-p", prompt(13), seed=2, sampling=Sampling(0.8, top_p=0.7), max_new_tokens=9),
    Request("all", prompt(4), seed=3, sampling=Sampling(1.2, top_p=0.95, top_k=40, min_p=0.01), max_new_tokens=1),
]


@pytest.fixture(scope="module")
def mixed():
    """The answers to `MIXED`, in one program."""
    return generate(*tiny(), MIXED)


@pytest.fixture(scope="module")
def mixed_unstacked():
    """The answers of the other layout, the CPU's."""
    return generate(*tiny("unstacked"), MIXED)


def by_layer():
    """The unstacked model, its layers programs of their own."""
    model, variables = tiny("unstacked")
    execution = dataclasses.replace(model.execution, programs="layer")
    return dataclasses.replace(model, execution=execution), variables


def same(a, b, *, exact=False):
    """Whether two completions agree; logits of different programs differ by rounding."""
    assert (a.id, a.finish_reason, a.text) == (b.id, b.finish_reason, b.text)
    np.testing.assert_array_equal(a.tokens, b.tokens)
    np.testing.assert_array_equal(a.routes_LT, b.routes_LT)
    for field in ("logprobs_model", "logprobs_sampling"):
        np.testing.assert_allclose(getattr(a, field), getattr(b, field), rtol=0, atol=0 if exact else 1e-5)


@pytest.mark.parametrize("row", range(4))
def test_answers_are_what_full_forward_passes_say(mixed, row):
    request, answer = MIXED[row], mixed[row]
    text = [*request.tokens, *answer.tokens]
    logits, routes = forward(*tiny(), text[:-1])
    logits = logits[len(request.tokens) - 1 :]
    chosen = np.arange(len(answer.tokens)), answer.tokens
    assert answer.finish_reason == "length" and len(answer.tokens) == request.max_new_tokens
    np.testing.assert_array_equal(answer.routes_LT, routes)
    assert answer.routes_LT.dtype == np.int8 and answer.routes_LT.min() >= 0
    np.testing.assert_allclose(answer.logprobs_model, log_softmax(logits)[chosen], atol=1e-5)
    if request.sampling == GREEDY:
        np.testing.assert_array_equal(answer.tokens, logits.argmax(axis=-1))
        assert (answer.logprobs_sampling == 0).all()
    else:
        kept = np.array([kept_oracle(x, request.sampling) for x in logits])
        assert kept[chosen].all()
        expected = log_softmax(np.where(kept, logits / request.sampling.temperature, -np.inf))
        np.testing.assert_allclose(answer.logprobs_sampling, expected[chosen], atol=2e-5)


def test_the_tiny_model_says_different_things(mixed):
    assert len(set(mixed[0].tokens.tolist())) > 2
    assert len(set(mixed[1].tokens.tolist())) > 10
    assert len(np.unique(mixed[1].routes_LT)) > 2


@pytest.mark.parametrize("chunk", [1, 7])
def test_streaming_is_the_same(mixed, chunk):
    deltas = list(stream(*tiny(), MIXED, tokenizer=tokenizer(), chunk=chunk))
    assert [len(delta.tokens) for delta in deltas[0]] == [1, 1, 1, 1]  # as soon as the prompts are read
    assert max(len(delta.tokens) for part in deltas for delta in part) == chunk
    for index, whole in enumerate(mixed):
        own = [delta for part in deltas for delta in part if delta.index == index]
        assert [delta.completion is not None for delta in own] == [False] * (len(own) - 1) + [True]
        last = own[-1].completion
        same(dataclasses.replace(last, text=None), whole)
        for field in ("tokens", "logprobs_model", "logprobs_sampling"):
            joined = np.concatenate([getattr(delta, field) for delta in own])
            np.testing.assert_array_equal(joined, getattr(last, field))
        assert "".join(delta.text for delta in own) == last.text == tokenizer().decode(last.tokens)


def test_the_other_layout_says_the_same(mixed, mixed_unstacked):
    for a, b in zip(mixed_unstacked, mixed):
        same(a, b)


@pytest.mark.parametrize("chunk", [None, 7])
def test_a_program_a_layer_says_the_same(mixed, chunk):
    model, variables = by_layer()
    for a, b in zip(generate(model, variables, MIXED, chunk=chunk), mixed):
        same(a, b)


def test_a_program_a_layer_stops_rows_and_remembers(mixed):
    model, variables = by_layer()
    free = tokenizer().decode(mixed[1].tokens)
    stop = next(char for char in free[1:] if char.isascii() and char.isprintable())
    requests = [dataclasses.replace(request, stop_strings=(stop,)) for request in MIXED]
    answers, expected = (generate(*ours, requests, tokenizer=tokenizer()) for ours in ((model, variables), tiny()))
    assert answers[1].finish_reason == "stop"
    for a, b in zip(answers, expected):
        same(a, b)
    session, known = Session(model, variables), Session(*tiny())
    text = prompt(9)
    for turn in range(2):
        request = Request(str(turn), text, seed=turn, max_new_tokens=6)
        answer, expected = ([*s.reply(request)][-1].completion for s in (session, known))
        same(answer, expected)
        text = (*text, *answer.tokens.tolist(), 9, 8)
    assert len(session.memory.tokens) == len(known.memory.tokens)


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["stacked", "unstacked"])
def test_batch_mates_change_no_bit_of_optimized_programs(layout, optimized):
    compare_mates(layout, generate(*tiny(layout), MIXED))


@pytest.mark.parametrize("layout", ["stacked", "unstacked"])
def test_batch_mates_change_no_bit(layout, request):
    compare_mates(layout, request.getfixturevalue("mixed" if layout == "stacked" else "mixed_unstacked"))


def compare_mates(layout, alone):
    """One program: same slots, same buckets. The last mates crowd one expert."""
    mates = [
        Request("short", prompt(2, 9), seed=12, sampling=GREEDY, max_new_tokens=20),
        Request("other", (50,) * 16, seed=13, sampling=Sampling(0.5, min_p=0.2), max_new_tokens=14),
        Request("again", (50,) * 16, seed=14, max_new_tokens=14),
    ]
    generate(*tiny(layout), MIXED)  # compiled, should that have been forgotten meanwhile
    before = decode.run_whole._cache_size()
    for row, own in enumerate(MIXED[:3]):
        for place in (0, 3):
            answers = generate(*tiny(layout), [*mates[:place], own, *mates[place:]])
            same(answers[place], alone[row], exact=True)
    assert decode.run_whole._cache_size() == before


def test_empty_slots_and_batches_change_nothing(mixed):
    seen = []
    expected = [*mixed, *mixed[:2]]
    answers = generate(*tiny(), [*MIXED, *MIXED[:2]], batch_size=4, progress=lambda *now: seen.append(now))
    for a, b in zip(answers, expected, strict=True):
        same(a, b)
    assert seen[-1] == (6, 6, sum(len(answer.tokens) for answer in expected))
    assert sorted(seen) == seen


def test_stop_ids_end_each_row_by_itself(mixed):
    free = mixed[1].tokens.tolist()
    stop = free[11]
    cut = free.index(stop) + 1
    requests = [MIXED[0], dataclasses.replace(MIXED[1], stop_ids=(300, stop)), *MIXED[2:]]
    answers = generate(*tiny(), requests)
    assert answers[1].finish_reason == "stop"
    assert answers[1].tokens.tolist() == free[:cut]
    np.testing.assert_array_equal(answers[1].routes_LT, mixed[1].routes_LT[:, : 1 + cut - 1])
    for row in (0, 2, 3):
        same(answers[row], mixed[row], exact=True)


def test_a_first_token_can_be_the_last():
    first = generate(*tiny(), MIXED)[0].tokens[0]
    requests = [dataclasses.replace(request, stop_ids=(int(first),)) for request in MIXED]
    answer = generate(*tiny(), requests)[0]
    assert answer.tokens.tolist() == [first] and answer.finish_reason == "stop"


def test_stop_strings_end_an_answer_in_the_middle_of_a_chunk(mixed):
    """The model is led to write a text of its own choice; a stop string is taken from it."""
    tok = tokenizer()
    free = mixed[1].tokens.tolist()
    stop = next(char for char in tok.decode(free)[1:] if char.isascii() and char.isprintable())
    requests = [dataclasses.replace(request, stop_strings=("never this", stop)) for request in MIXED]
    for chunk in (None, 1, 7):
        answer = generate(*tiny(), requests, tokenizer=tok, chunk=chunk)[1]
        cut = next(n for n in range(1, 21) if stop in tok.decode(free[:n]))
        assert answer.finish_reason == "stop"
        assert answer.tokens.tolist() == free[:cut]
        assert answer.text == tok.decode(free[:cut]).partition(stop)[0]
        assert len(answer.logprobs_model) == cut and answer.routes_LT.shape == (2, 1 + cut - 1)


def test_a_stop_id_has_no_text(mixed):
    free = mixed[1].tokens.tolist()
    requests = [dataclasses.replace(request, stop_ids=(free[5],)) for request in MIXED]
    answer = generate(*tiny(), requests, tokenizer=tokenizer())[1]
    assert answer.tokens[-1] == free[5]
    assert answer.text == tokenizer().decode(answer.tokens[:-1])


def test_a_cache_grows_while_it_is_needed(monkeypatch, mixed):
    monkeypatch.setattr(run, "FIRST_CAPACITY", 16)
    grown = []
    real = decode.run_grow
    monkeypatch.setattr(decode, "run_grow", lambda *a, capacity: grown.append(capacity) or real(*a, capacity=capacity))
    for answer, whole in zip(generate(*tiny(), MIXED, chunk=7), mixed):
        same(answer, whole)
    assert grown == [32]


def test_a_cache_doubles_up_to_the_room_it_can_need():
    first = run.FIRST_CAPACITY
    assert run.next_capacity(5, 0, room=64) == 64
    assert run.next_capacity(5, 0, room=6144) == first
    assert run.next_capacity(first + 1, first, room=6144) == 6144
    assert run.next_capacity(first + 1, first, room=16 * first) == 2 * first
    assert run.next_capacity(5 * first, first, room=16 * first) == 6 * first


def test_the_cache_is_written_in_place():
    model, variables = tiny()
    batch = decode.make_batch(MIXED)
    tokens, count = decode.pad_right([request.tokens for request in MIXED])
    state, _, _ = decode.run_prefill(model, variables, batch, tokens, count, None, capacity=32)
    before = state.cache.layers[0].k_BSKH
    place = before.unsafe_buffer_pointer()
    stopped = np.zeros(4, bool)
    state, _ = decode.run_decode(model, variables, batch, state, stopped, 7, columns=16)
    assert before.is_deleted()
    assert state.cache.layers[0].k_BSKH.unsafe_buffer_pointer() == place
    # rows that have ended are stored no further
    np.testing.assert_array_equal(state.cache.length_B, [7 + 7, 1 + 7, 13 + 7, 4])


def test_buckets():
    sizes = [decode.bucket(n) for n in range(1, 3000)]
    assert sorted(set(sizes)) == [16, 32, 64, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072]
    assert all(n <= size for n, size in enumerate(sizes, 1))
    assert decode.bucket(32) == 32 and decode.bucket(33) == 64


class TestSession:
    """A conversation is answered as if each turn were read anew, but is not."""

    @pytest.fixture
    def read(self, monkeypatch):
        """Numbers of tokens read by the prefills so far."""
        counts = []
        real = decode.pad_right
        monkeypatch.setattr(decode, "pad_right", lambda p: counts.append(len(p[0])) or real(p))
        return counts

    def ask(self, session, tokens, **settings):
        request = Request("turn", tokens, seed=4, max_new_tokens=6, **settings)
        deltas = list(session.reply(request))
        replay(request, deltas[-1].completion)
        return deltas[-1].completion.tokens.tolist()

    def test_extension_of_everything(self, read):
        session, text = Session(*tiny()), list(prompt(5))
        for turn in range(3):
            text += self.ask(session, text)
            text += prompt(3, turn)
        assert read == [5, 4, 4]  # the last sampled token has not been read before
        assert session.memory.tokens == tuple(text[:-4])

    def test_return_to_the_last_prompt(self, read):
        """As when a template drops the reasoning: what follows the last prompt is another text."""
        session, text = Session(*tiny()), list(prompt(4))
        for turn in range(3):
            self.ask(session, text)
            text += prompt(2, turn)
        # back to the prompt's end, which then lies too far back for the window of 9
        assert read == [4, 2, 8]

    def test_another_text_is_read_anew(self, read):
        session = Session(*tiny())
        self.ask(session, prompt(5))
        self.ask(session, prompt(6, 1))
        self.ask(session, prompt(6, 1))  # the very same prompt again: its last token has to be read
        assert read == [5, 6, 6]

    def test_an_answer_left_unfinished_is_remembered(self, read):
        session, text = Session(*tiny(), chunk=2), list(prompt(5))
        answer = session.reply(Request("turn", text, seed=4, max_new_tokens=30))
        taken = [token for _ in range(2) for token in next(answer).tokens.tolist()]
        answer.close()
        assert session.memory.tokens == (*text, *taken[:-1])
        self.ask(session, [*text, *taken, 9])
        assert read[:2] == [5, 2]

    def test_an_interrupt_in_a_step_forgets(self, monkeypatch):
        session = Session(*tiny())
        self.ask(session, prompt(5))

        def interrupted(*_, **__):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(decode, "run_decode", interrupted)
            list(session.reply(Request("turn", prompt(6), max_new_tokens=6)))
        assert session.memory is None
        self.ask(session, prompt(5))


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"tokens": ()}, "request r: empty prompt; expected at least one token"),
        ({"tokens": (1, 272)}, "request r, tokens: token id outside of the vocabulary; expected 0 to 271; found 272"),
        ({"tokens": (1, -1)}, "request r, tokens: token id outside of the vocabulary; expected 0 to 271; found -1"),
        ({"tokens": (1, 2**70)}, "token id outside of the vocabulary"),
        ({"tokens": (1, 2.0)}, "request r, tokens: not a token id; expected an integer; found 2.0"),
        ({"tokens": (1, True)}, "not a token id; expected an integer; found True"),
        ({"tokens": (None,)}, "not a token id; expected an integer; found None"),
        ({"tokens": "12"}, "not token ids; expected a list of integers; found str"),
        ({"tokens": np.ones(3)}, "not token ids; expected a list of integers; found float64[3]"),
        ({"tokens": np.ones((1, 3), int)}, "not token ids; expected a list of integers; found int64[1, 3]"),
        ({"tokens": (1,) * 128}, "no room in the context for an answer; expected at most 127 tokens; found 128 tokens"),
        (
            {"tokens": (1,) * 120, "max_new_tokens": 9},
            "expected at most 128 tokens; found 120 of the prompt + 9 new ones; ask for at most 8 (max_new_tokens)",
        ),
        ({"max_new_tokens": 0}, "request r, max_new_tokens: out of range; expected a positive integer; found 0"),
        ({"seed": -1}, "request r, seed: out of range; expected 0 to 4294967295; found -1"),
        ({"stop_strings": ("x",)}, "request r: stop strings need a tokenizer; give stop_ids instead"),
        ({"stop_strings": "x"}, "request r, stop_strings: out of range; expected non-empty strings; found 'x'"),
        ({"stop_strings": ("",)}, "expected non-empty strings"),
        ({"stop_ids": ("x",)}, "request r, stop_ids: not a token id; expected an integer; found 'x'"),
    ],
)
def test_mistakes_name_the_request(request_, message):
    with pytest.raises(UserError) as caught:
        generate(*tiny(), [Request(**{"id": "r", "tokens": (1,), "max_new_tokens": 2, **request_})])
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"temperature": -1.0}, "temperature: out of range; expected 0 (greedy), or a number from 1e-05 to 1000"),
        ({"temperature": float("nan")}, "temperature: out of range"),
        ({"temperature": 1e-9}, "temperature: out of range"),
        ({"top_p": 0.0}, "top_p: out of range; expected a number above 0, at most 1; found 0.0"),
        ({"top_p": 1.5}, "top_p: out of range"),
        ({"top_k": -2}, "top_k: out of range; expected a count, or -1 or 0 for off; found -2"),
        ({"top_k": 2.5}, "top_k: out of range"),
        ({"min_p": 1.1}, "min_p: out of range; expected a number from 0 to 1; found 1.1"),
    ],
)
def test_mistaken_sampling(setting, message):
    with pytest.raises(UserError, match="out of range") as caught:
        Sampling(**setting)
    assert message in str(caught.value)


def test_prompts_may_be_arrays():
    request = Request("r", jax.numpy.arange(3), stop_ids=np.array([5], np.int64))
    assert (request.tokens, request.stop_ids) == ((0, 1, 2), (5,))


def test_no_requests_and_no_batch():
    with pytest.raises(UserError, match="no requests"):
        generate(*tiny(), [])
    with pytest.raises(UserError, match="batch_size: out of range"):
        generate(*tiny(), MIXED, batch_size=0)
