"""Markovian RSA behind one chat message: the whole search over the server's engine, and one answer out of it."""

from __future__ import annotations

import collections
import dataclasses
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import anyio.to_thread
import numpy as np

from zaya_jax.errors import UserError
from zaya_jax.grading.equivalence import cluster
from zaya_jax.grading.extract import extract
from zaya_jax.sampling.markovian_rsa import Candidate, Question, Search, Settings
from zaya_jax.sampling.request import Delta, Request, Sampling
from zaya_jax.sampling.rsa_run import bill
from zaya_jax.serving.asked import Served, check_model, enable_thinking, new_id, read_messages, seeds, think_ids
from zaya_jax.serving.fields import Fields, bounded_sampling, refuse_unsupported
from zaya_jax.serving.refusals import Refusal
from zaya_jax.serving.reply import Reply
from zaya_jax.serving.shapes import Json, usage
from zaya_jax.serving.worker import Stream, Worker
from zaya_jax.text.aggregation import KINDS, cut_prompts, load_wording
from zaya_jax.text.tokenizer import Tokenizer

MOST_CANDIDATES, MOST_ROUNDS = 256, 64
PROBLEM = "problem"  # a question's id: noise depends on it, so it is the same for all, as seeds are what differs
_ANSWERS = {"math": "latex", "choice": "choice", "general": "exact"}  # the kinds of answers that are voted on
_SECONDS_A_WORD = 2.0  # between two words about how much is drawn
_BUDGETS = "beta and answer_budget say how long answers are"
_NOT_HERE = {
    "max_tokens": _BUDGETS,
    "max_completion_tokens": _BUDGETS,
    "thinking_budget": "beta is the budget of reasoning",
    "tools": "candidates call no tools",
    "stop": "",
    "stop_token_ids": "",
    "ignore_eos": "",
    "return_token_ids": "",
}


@dataclasses.dataclass(frozen=True)
class AskedSearch:
    """A search that a client asks for.

    Attributes:
        id: of the response.
        question, settings: of the search.
        selection: whether the answer is that of the final call, or what most of the last round say.
        kind: of the problem: which words ask for aggregation, and which answers are the same.
        stream, include_usage: as in `asked.Asked`.
        context: of the engine.
    """

    id: str
    question: Question
    settings: Settings
    selection: str
    kind: str
    stream: bool
    include_usage: bool
    context: int

    @property
    def begun(self) -> Search:
        """The search, with nothing asked yet."""
        return Search(self.question, self.settings, self.context)


def read_search(body: Mapping[str, Any], served: Served) -> AskedSearch:
    """A body of /v1/chat/completions with `markovian_rsa`.

    Raises:
        Refusal: a field is wrong, or does not go with a search.
    """
    fields = Fields(body)
    check_model(fields, served)
    refuse_unsupported(body, _NOT_HERE)
    inner = fields.inner("markovian_rsa")
    if fields.integer("n", 1, 1, 1) != 1 or fields.flag("logprobs"):
        raise Refusal(400, "logprobs are not given with markovian_rsa", param="logprobs", code="unsupported_parameter")
    if not enable_thinking(fields):
        param = "chat_template_kwargs.enable_thinking"
        raise Refusal(400, f"{param}: a search is reasoning; leave it out", param=param, code="invalid_value")
    kind = inner.choice("kind", "math", KINDS)
    selection = inner.choice("selection", "majority", ("majority", "final"))
    if selection == "majority" and kind not in _ANSWERS:
        raise inner.wrong("selection", f'"final" for the kind "{kind}": such answers cannot be compared')
    settings = _settings(fields, inner, served, selection == "final")
    options = fields.inner("stream_options")
    try:
        pieces = cut_prompts(served.tokenizer, _problem(fields), load_wording(kind), settings.c)
        question = Question(PROBLEM, pieces, served.tokenizer.stop_ids, think_ids(served.tokenizer))
        Search(question, settings, served.context)
    except UserError as error:
        raise Refusal(400, str(error), param="markovian_rsa", code="invalid_value") from error
    return AskedSearch(
        new_id("chatcmpl"),
        question,
        settings,
        selection,
        kind,
        fields.flag("stream"),
        options is not None and options.flag("include_usage"),
        served.context,
    )


def _settings(fields: Fields, inner: Fields, served: Served, final_call: bool) -> Settings:
    known = {"n", "c", "t", "beta", "tau", "answer_budget", "selection", "kind"}
    for name in inner.values:
        if name not in known:
            param = f"markovian_rsa.{name}"
            raise Refusal(400, f"{param}: no such field; there are {', '.join(sorted(known))}", param=param)
    default, tokens = Settings(), served.context
    n = inner.integer("n", default.n, 1, min(MOST_CANDIDATES, served.places))
    beta = inner.integer("beta", default.beta, 1, tokens)
    try:
        return Settings(
            n=n,
            c=inner.integer("c", min(default.c, n), 1, n),
            t=inner.integer("t", default.t, 0, MOST_ROUNDS),
            beta=beta,
            tau=inner.integer("tau", min(default.tau, beta), 1, beta),
            answer_budget=inner.integer("answer_budget", default.answer_budget, 1, tokens),
            final_call=final_call,
            sampling=Sampling(**bounded_sampling(fields, served.temperature, served.top_p)),
            seed=seeds(fields, 1)[0],
        )
    except UserError as error:
        raise Refusal(400, f"markovian_rsa: {error}", param="markovian_rsa", code="invalid_value") from error


def _problem(fields: Fields) -> str:
    messages = read_messages(fields)
    if len(messages) != 1 or messages[0]["role"] != "user":
        message = "messages: markovian_rsa takes a single message of the user, the problem with all that is asked for"
        raise Refusal(400, message, param="messages", code="invalid_value")
    return messages[0]["content"]


class SearchRun:
    """A search under way.

    Attributes:
        search: what is known of it.
    """

    def __init__(self, asked: AskedSearch, worker: Worker):
        self.asked, self.search = asked, asked.begun
        first = self.search.begin()
        self.stream: Stream = worker.open([self._own(request) for request in first], places=asked.settings.n)
        self._drawn = 0

    async def run(self, heartbeat: float) -> AsyncIterator[str]:
        """Goes through to the end; says how far it is whenever a candidate is complete, and every so many seconds.

        Raises:
            Refusal: as `Stream.next`.
        """
        settings, rounds, next_word = self.asked.settings, self.search.rounds, time.monotonic() + _SECONDS_A_WORD
        while not self.search.done:
            for delta in await self.stream.next(heartbeat) or [_NOTHING]:
                self._drawn += len(delta.tokens)
                if delta.completion is None:
                    continue
                original = dataclasses.replace(delta.completion, id=delta.id.removeprefix(f"{self.asked.id}/"))
                # Putting prompts together is the device's work: not on the event loop.
                complete, more = await anyio.to_thread.run_sync(self.search.take, original)
                self.stream.submit([self._own(request) for request in more])
                for one in complete:
                    found, size = len(self.search.population(one.round)), 1 if one.round > settings.t else settings.n
                    yield f"round {one.round + 1} of {rounds}: {found} of {size} candidates, {self._drawn} tokens drawn"
            if time.monotonic() >= next_word:
                yield f"{self._drawn} tokens drawn"
                next_word = time.monotonic() + _SECONDS_A_WORD

    def _own(self, request: Request) -> Request:
        """A request under a name that no other search has."""
        return dataclasses.replace(request, id=f"{self.asked.id}/{request.id}")


_NOTHING = Delta("", 0, np.zeros(0, np.int32), np.zeros(0), np.zeros(0))


@dataclasses.dataclass(frozen=True)
class Chosen:
    """A search's answer.

    Attributes:
        candidate: whose answer it is.
        votes: answers of the last round and how many gave them, the most first; empty if nobody voted.
    """

    candidate: Candidate
    votes: tuple[tuple[str, int], ...] = ()


def choose(search: Search, selection: str, kind: str, tokenizer: Tokenizer) -> Chosen:
    """The final call's candidate, or the first of those who gave the answer that most of the last round gave.

    Equivalent answers are counted together; of several that have the most, that of the first candidate wins. Without
    any answer that can be read, the first candidate is it.
    """
    if selection == "final":
        return Chosen(search.population(search.rounds - 1)[0])
    last = search.population(search.settings.t)
    answers = [extract(reply(one, tokenizer)[1], _ANSWERS[kind]) for one in last]
    classes = cluster(answers, _ANSWERS[kind])
    votes = collections.Counter(number for number in classes if number >= 0)
    if not votes:
        return Chosen(last[0])
    ranked = sorted(votes, key=lambda number: (-votes[number], number))
    said = tuple((answers[classes.index(number)], votes[number]) for number in ranked)
    return Chosen(last[classes.index(ranked[0])], said)


def reply(candidate: Candidate, tokenizer: Tokenizer) -> tuple[str, str]:
    """A candidate's reasoning and answer."""
    own = candidate.completion
    whole = Delta(own.id, 0, own.tokens, own.logprobs_model, own.logprobs_sampling, completion=own)
    gained = Reply(candidate.request, tokenizer).push(whole)
    return gained.reasoning, gained.content


def search_usage(search: Search) -> Json:
    """All that was read and drawn, of every candidate."""
    bills = bill(search)
    read, reused = (sum(getattr(one, name) for one in bills) for name in ("prefilled", "reused"))
    counted = usage(read + reused, sum(one.generated for one in bills))
    return counted | {"prompt_tokens_details": {"cached_tokens": reused}}


def report(asked: AskedSearch, search: Search, chosen: Chosen) -> Json:
    """The response's `markovian_rsa`."""
    return {
        "selection": asked.selection,
        "kind": asked.kind,
        "rounds": [dataclasses.asdict(one) for one in bill(search)],
        "votes": [{"answer": answer, "votes": votes} for answer, votes in chosen.votes],
        "chosen": {"round": chosen.candidate.round, "index": chosen.candidate.index},
    }


def search_response(run: SearchRun, model: str, tokenizer: Tokenizer, *, chunks: bool) -> list[Json]:
    """The whole response; with `chunks`, those that a stream has."""
    asked, search = run.asked, run.search
    chosen = choose(search, asked.selection, asked.kind, tokenizer)
    reasoning, content = reply(chosen.candidate, tokenizer)
    frame = {"id": asked.id, "created": int(time.time()), "model": model}
    found, cost = {"markovian_rsa": report(asked, search, chosen)}, {"usage": search_usage(search)}
    reason = chosen.candidate.completion.finish_reason
    if not chunks:
        message = {"role": "assistant", "content": content} | ({"reasoning_content": reasoning} if reasoning else {})
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": reason}
        return [{**frame, "object": "chat.completion", "choices": [choice], **cost, **found}]
    frame["object"] = "chat.completion.chunk"
    texts: Sequence[Json] = [{"reasoning_content": reasoning}] if reasoning else []
    deltas = [(delta, None) for delta in (*texts, {"content": content})] + [({}, reason)]
    said = [
        {**frame, "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": end}]}
        for delta, end in deltas
    ]
    said[-1] |= found
    return said + ([{**frame, "choices": [], **cost}] if asked.include_usage else [])
