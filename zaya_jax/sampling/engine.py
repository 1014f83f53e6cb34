"""Continuous batching: requests over a fixed number of slots, a finished one's slot given to the next at once.

    engine = Engine(model, variables, slots=16, capacity=4096)
    completions = engine.run(requests)

or request by request: `submit`, then `step` while `busy`, each of which reads waiting prompts and decodes a burst of
tokens. On one device, what is drawn for a request depends on nothing but the request, the weights, and the programs
that `slots`, `capacity` and `chunk` stand for: neither on the other requests, nor on when it came, nor on which slot it
got, nor on what was already known of its prompt.
"""

from __future__ import annotations

import collections
import dataclasses
import time
from collections.abc import Callable, Iterable

import jax
import numpy as np

from zaya_jax.errors import mistake
from zaya_jax.model import Zaya
from zaya_jax.model.layout import Variables
from zaya_jax.model.programs import one_per_layer
from zaya_jax.parallel import check_rows
from zaya_jax.sampling import decode, decode_by_layer
from zaya_jax.sampling import slots as device
from zaya_jax.sampling.answers import Answer
from zaya_jax.sampling.decode import NOBODY, Batch, bucket
from zaya_jax.sampling.prefixes import ROOT, Node, Prefixes, cuts
from zaya_jax.sampling.request import Completion, Delta, Request, check_request, check_text
from zaya_jax.text.tokenizer import Tokenizer

FEWEST_SLOTS = 2  # one row alone is computed by other programs, with other bits


@dataclasses.dataclass
class Stats:
    """What an engine has done.

    Attributes:
        read_tokens, known_tokens: of prompts, read and found among what was known.
        decoded_tokens, decode_steps: drawn by decoding steps, and those steps. A request's first token comes from its
            prompt and is not among them.
        read_seconds, decode_seconds: spent in reading prompts and in decoding, the host's work for them included.
        host_seconds: of `decode_seconds`, what the host took before it waited for the device and behind that. A model
            whose layers are programs of their own is driven by the host all the time.
    """

    read_tokens: int = 0
    known_tokens: int = 0
    decoded_tokens: int = 0
    decode_steps: int = 0
    read_seconds: float = 0.0
    decode_seconds: float = 0.0
    host_seconds: float = 0.0


@dataclasses.dataclass
class _Row:
    """A request in a slot, and what is left to read of its prompt."""

    answer: Answer
    tokens: np.ndarray
    pieces: collections.deque[tuple[int, int]]
    parent: int = ROOT
    routes: list[tuple[jax.Array, int]] = dataclasses.field(default_factory=list)

    @property
    def piece(self) -> np.ndarray:
        """The tokens to be read next."""
        start, stop = self.pieces[0]
        return self.tokens[start:stop]

    @property
    def last(self) -> bool:
        """Whether those are the prompt's last."""
        return len(self.pieces) == 1


class Engine:
    """Answers requests over a fixed number of slots.

    Args of the constructor:
        slots: rows decoded together, at least 2; on a mesh a multiple of the devices that rows are spread over.
        capacity: tokens a row has room for, prompt and answer; rounded up.
        tokenizer: decodes the answers; needed for stop strings, costs time.
        chunk: tokens of a prompt read at a time.
        burst: decoding steps between two looks at the answers, at most.
        known_bytes: how much is remembered of prompts, for others that begin alike, on each device; by default half as
            much as the slots' cache takes there.
        read_limit: tokens of prompts after which a step reads no more of them; None for all that wait. If no row is
            decoding, a step reads one piece at least.
        version: of the weights.
        kept: K, the most ids that a token is drawn from, those being told (`Completion.kept_KN`); 0 draws from all that
            a request's filters leave.

    Raises:
        UserError: a number is out of its range, or the slots do not divide evenly.
    """

    def __init__(
        self,
        model: Zaya,
        variables: Variables,
        *,
        slots: int = 8,
        capacity: int = 2048,
        tokenizer: Tokenizer | None = None,
        chunk: int = 256,
        burst: int = 32,
        known_bytes: int | None = None,
        read_limit: int | None = None,
        version: int = 0,
        kept: int = 0,
    ):
        least = {"slots": FEWEST_SLOTS, "capacity": 1, "chunk": 4, "burst": 1, "known_bytes": 0, "read_limit": 0}
        given = (slots, capacity, chunk, burst, known_bytes, read_limit)
        for (name, fewest), value in zip(least.items(), given):
            _check_count(name, value, fewest)
        _check_count("kept", kept, 0)
        self._kept = min(kept, model.config.vocab_size)
        check_rows(model.execution.mesh, slots)
        self._model, self._variables, self._tokenizer = model, variables, tokenizer
        self.slots, self.capacity, self.version = slots, bucket(capacity), version
        self._chunk, self._burst, self._read_limit = chunk, burst, read_limit
        self.stats = Stats()
        self._by_layer = one_per_layer(model.config, model.execution)
        self._waiting: collections.deque[Answer] = collections.deque()
        self._rows: list[_Row | None] = [None] * self.slots
        self._ids: set[str] = set()
        self._submitted = 0
        self._batch = decode.make_batch([NOBODY] * self.slots, self._kept)
        self._held: decode.State | None = device.empty(model, self.slots, self.capacity)
        self._together = device.rows_read_together(model)
        # On a mesh every device has its part of the slots, but all of what is known.
        half = device.nbytes(self._held.cache) // self._together // 2
        self._known = Prefixes(half if known_bytes is None else known_bytes)
        self._stopped_B = np.zeros(self.slots, bool)

    @property
    def model(self) -> Zaya:
        """Whose answers these are."""
        return self._model

    @property
    def busy(self) -> bool:
        """Whether any request is unfinished."""
        return bool(self._waiting) or any(self._rows)

    @property
    def waiting(self) -> int:
        """How many requests have no slot yet."""
        return len(self._waiting)

    def submit(self, request: Request) -> None:
        """Takes a request; it gets a slot when those before it have.

        Raises:
            UserError: the model or the engine has no room for it, its id is that of an unfinished one, or it has stop
                strings and there is no tokenizer.
        """
        self.check(request)
        self._ids.add(request.id)
        self._waiting.append(Answer(self._submitted, request, self._tokenizer))
        self._submitted += 1

    def check(self, request: Request) -> None:
        """Raises what `submit` would."""
        where, room = f"request {request.id}", len(request.tokens) + request.max_new_tokens
        check_request(request, self._model.config)
        check_text(request, self._tokenizer)
        if room > self.capacity:
            expected, found = f"at most {self.capacity} tokens", f"{room} of prompt and answer"
            fix = "make the engine's capacity larger, or the request shorter"
            raise mistake("the engine has no room for it", where=where, expected=expected, found=found, fix=fix)
        if request.id in self._ids:
            raise mistake("an unfinished request has this id", where=where, fix="take another id")

    def cancel(self, request_id: str) -> bool:
        """Drops an unfinished request; returns whether there was one."""
        for answer in self._waiting:
            if answer.request.id == request_id:
                self._waiting.remove(answer)
                self._ids.remove(request_id)
                return True
        for slot, row in enumerate(self._rows):
            if row is not None and row.answer.request.id == request_id:
                self._leave(slot)
                return True
        return False

    def update_weights(self, variables: Variables, version: int) -> None:
        """Takes new weights, from the next token on. What unfinished requests have read stays as it was read."""
        self._variables, self.version = variables, version
        self._known.clear()

    def snapshot(self) -> list[Request]:
        """The unfinished requests, in the order in which they came; what was drawn for them is not kept.

        Submitted again, they are answered the same, unless weights were updated while they were under way.
        """
        answers = [row.answer for row in self._rows if row is not None] + list(self._waiting)
        return [answer.request for answer in sorted(answers, key=lambda answer: answer.index)]

    def run(
        self, requests: Iterable[Request], *, progress: Callable[[int, int, int], None] | None = None
    ) -> list[Completion]:
        """Answers requests on an engine that has no others; the completions are in their order.

        Args:
            requests: all are checked before the first is read.
            progress: is told after every burst how many are finished, how many there are, and the tokens drawn.

        Raises:
            UserError: as `submit`; the engine is busy; or one was cancelled meanwhile.
        """
        requests = list(requests)
        self._check_all(requests)
        first, done, tokens = self._submitted, {}, 0
        for request in requests:
            self.submit(request)
        while self.busy:
            deltas = self.step()
            tokens += sum(len(delta.tokens) for delta in deltas)
            done |= {delta.index - first: delta.completion for delta in deltas if delta.completion is not None}
            if progress:
                progress(len(done), len(requests), tokens)
        if lost := [request.id for index, request in enumerate(requests) if index not in done]:
            raise mistake("cancelled while it was waited for", where=f"request {lost[0]}")
        return [done[index] for index in range(len(requests))]

    def step(self, steps: int | None = None) -> list[Delta]:
        """Gives free slots to waiting requests, reads prompts, and decodes up to `steps` tokens a row, or `burst`,
        whichever is less.

        Returns:
            What each answer has gained, in the order in which it was gained: `Delta.index` counts the requests as they
            came. A request may have two: its first token comes from its prompt.

        Raises:
            UserError: `steps` is not positive, or the engine was interrupted in the middle of a step.
        """
        _check_count("steps", steps, 1)
        start = time.perf_counter()
        deltas = self._read_prompts()
        middle = time.perf_counter()
        if self._decoding():
            deltas += self._decode(min(steps or self._burst, self._burst))
        self.stats.read_seconds += middle - start
        self.stats.decode_seconds += time.perf_counter() - middle
        return deltas

    def _check_all(self, requests: list[Request]) -> None:
        if self.busy:
            fix = "submit and step, or give it an engine of its own"
            raise mistake("the engine has other requests", where="Engine.run", fix=fix)
        for request in requests:
            self.check(request)
        twice = [name for name, count in collections.Counter(request.id for request in requests).items() if count > 1]
        if twice:
            raise mistake("two requests of one id", where=f"request {twice[0]}", fix="take another id")

    def _use(self) -> decode.State:
        """The state, which the next program uses up; whoever takes it puts the new one back."""
        if self._held is None:
            fix = "make a new engine and submit the requests of snapshot()"
            raise mistake("the engine was interrupted in the middle of a step", fix=fix)
        state, self._held = self._held, None
        return state

    def _decoding(self) -> list[tuple[int, _Row]]:
        return [(slot, row) for slot, row in enumerate(self._rows) if row is not None and not row.pieces]

    def _reading(self) -> list[tuple[int, _Row]]:
        """Rows whose prompts are not read yet, the oldest first."""
        rows = [(slot, row) for slot, row in enumerate(self._rows) if row is not None and row.pieces]
        return sorted(rows, key=lambda both: both[1].answer.index)

    def _enter(self) -> None:
        """Gives the free slots to those who wait."""
        for slot in range(self.slots):
            if self._waiting and self._rows[slot] is None:
                answer = self._waiting.popleft()
                request = answer.request
                pieces = cuts(len(request.tokens), request.prefix, self._chunk)
                self._rows[slot] = _Row(answer, np.array(request.tokens, np.int32), collections.deque(pieces))
                self._batch = _with_row(self._batch, slot, decode.make_batch([request], self._kept))

    def _leave(self, slot: int) -> None:
        self._ids.remove(self._rows[slot].answer.request.id)
        self._rows[slot] = None
        self._stopped_B = _with_value(self._stopped_B, slot, True)  # the device may not know

    def _read_prompts(self) -> list[Delta]:
        """Reads what waits to be read, as far as `read_limit` allows; the first tokens of those that are through."""
        before, deltas = self.stats.read_tokens, []
        while True:
            self._enter()
            begun = self._take_known()
            while (group := self._alike()) and not self._read_enough(self.stats.read_tokens - before):
                begun += self._read(group)
                begun += self._take_known()
            deltas += self._first_tokens(begun)
            if not begun or not self._waiting or all(self._rows):
                return deltas

    def _read_enough(self, count: int) -> bool:
        return self._read_limit is not None and count >= self._read_limit and bool(count or self._decoding())

    def _take_known(self) -> list[tuple[int, decode.Tape]]:
        """Puts what is known of prompts into their rows."""
        begun = []
        for slot, row in self._reading():
            while row.pieces and (node := self._known.find(row.parent, row.piece, row.last)):
                (start, stop), where = row.pieces[0], np.array([slot], np.int32)
                state = self._use()
                cache = device.run_put(self._model, state.cache, where, np.array([start], np.int32), node.piece)
                self._held = state.replace(cache=cache)
                self.stats.known_tokens += stop - start
                row.answer.known_tokens += stop - start
                begun += self._got(slot, row, node)
        return begun

    def _alike(self) -> list[tuple[int, _Row]]:
        """Rows whose next pieces one program reads: that of the oldest row, and those that fill it up."""
        group, shape, keys = [], None, set()
        for slot, row in self._reading():
            own, key = (*self._shape(*row.pieces[0]), row.last), (row.parent, row.piece.tobytes())
            if (shape is None or own == shape) and key not in keys and len(group) < self._together:
                group.append((slot, row))
                shape = own
                keys.add(key)
        return group

    def _shape(self, start: int, stop: int) -> tuple[int, int]:
        """Columns and room of the program that reads a piece: few of them, and the same for every such piece."""
        if start == 0:
            return bucket(stop), 0
        columns = self._chunk if stop - start > self._chunk // 4 else self._chunk // 4
        return columns, min(1 << (stop - 1).bit_length(), self.capacity)

    def _read(self, group: list[tuple[int, _Row]]) -> list[tuple[int, decode.Tape]]:
        """Reads the next piece of some rows."""
        columns, room = self._shape(*group[0][1].pieces[0])
        slot_R = np.full(self._together, self.slots, np.int32)
        tokens_RC, count_R = np.zeros((self._together, columns), np.int32), np.zeros(self._together, np.int32)
        for r, (slot, row) in enumerate(group):
            slot_R[r], count_R[r] = slot, len(row.piece)
            tokens_RC[r, : count_R[r]] = row.piece
        run = device.run_read_by_layer if self._by_layer else device.run_read
        state, last = self._use(), group[0][1].last
        cache, piece, logits_RV, routes_LRC = run(
            self._model, self._variables, state.cache, slot_R, tokens_RC, count_R, room=room, last=last
        )
        self._held = state.replace(cache=cache)
        self.stats.read_tokens += int(count_R.sum())
        begun = []
        for r, (slot, row) in enumerate(group):
            own, logits_1V, routes_LT = device.one_row(self._model, r, piece, logits_RV, routes_LRC)
            begun += self._got(slot, row, self._known.add(row.parent, row.piece, own, logits_1V, routes_LT))
        return begun

    def _got(self, slot: int, row: _Row, node: Node) -> list[tuple[int, decode.Tape]]:
        """A row's next piece stands in the cache; behind the last one, the first token is drawn."""
        count = len(row.piece)
        row.pieces.popleft()
        row.parent = node.id
        row.routes.append((node.routes_LT, count))
        if row.pieces:
            return []
        own = jax.tree.map(lambda x: x[slot : slot + 1], self._batch)
        where, state = np.array([slot], np.int32), self._use()
        small, column = device.run_begin(own, state.replace(cache=None), where, node.logits_1V)
        self._held = small.replace(cache=state.cache)
        self._stopped_B = _with_value(self._stopped_B, slot, False)
        return [(slot, column)]

    def _first_tokens(self, begun: list[tuple[int, decode.Tape]]) -> list[Delta]:
        """Fetches what was drawn behind prompts, all at once."""
        if not begun:
            return []
        columns = jax.device_get([decode.parts(column) for _, column in begun])
        finish_B = np.asarray(self._held.finish_B)
        deltas = []
        for (slot, _), parts in zip(begun, columns):
            row = self._rows[slot]
            row.answer.take_prompt([np.asarray(routes_LT)[:, :count] for routes_LT, count in row.routes])
            deltas.append(self._take(slot, row, [part[..., 0, :] for part in parts], 1, int(finish_B[slot])))
        return deltas

    def _decode(self, steps: int) -> list[Delta]:
        """Takes a burst of steps, cut short when a row ends and another request waits for it."""
        rows, state = self._decoding(), self._use()
        run = (decode_by_layer if self._by_layer else decode).run_decode
        start = time.perf_counter()
        state, tape = run(
            self._model,
            self._variables,
            self._batch,
            state,
            self._stopped_B,
            steps,
            columns=bucket(self._burst),
            fewest=len(rows) if self._waiting else 1,
        )
        sent = time.perf_counter()
        parts, step_B, finish_B = jax.device_get((decode.parts(tape), state.step_B, state.finish_B))
        ready = time.perf_counter()
        self._held = state
        self.stats.decode_steps += max(int(step_B[slot]) - len(row.answer.drawn) for slot, row in rows)
        deltas = [
            self._take(slot, row, [part[..., slot, :] for part in parts], int(step_B[slot]), int(finish_B[slot]))
            for slot, row in rows
        ]
        self.stats.decoded_tokens += sum(len(delta.tokens) for delta in deltas)
        self.stats.host_seconds += (sent - start) + (time.perf_counter() - ready)
        return deltas

    def _take(self, slot: int, row: _Row, parts: list[np.ndarray], step: int, finish: int) -> Delta:
        """Gives an answer its part of a tape; a finished one leaves its slot."""
        delta = row.answer.take(*parts, step=step, finish=finish, version=self.version)
        if delta.completion is not None:
            self._leave(slot)
        return delta


def compiled_programs() -> int:
    """How many programs this process has compiled for its engines so far; those of single layers are not counted."""
    programs = (device.run_read, device.run_put, device.run_begin, decode.run_decode)
    return sum(program._cache_size() for program in programs)


def _check_count(name: str, value: object, fewest: int) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < fewest):
        raise mistake("out of range", where=name, expected=f"a count of at least {fewest}", found=repr(value))


def _with_row(batch: Batch, slot: int, one: Batch) -> Batch:
    """The batch with another request in a row. Copies: a program may still be reading the old arrays."""
    wider = max(batch.stop_ids_BS.shape[1], one.stop_ids_BS.shape[1])
    batch, one = (b.replace(stop_ids_BS=_widened(b.stop_ids_BS, wider)) for b in (batch, one))
    return jax.tree.map(lambda all_B, own_1: _with_value(all_B, slot, own_1[0]), batch, one)


def _widened(stop_ids_BS: np.ndarray, columns: int) -> np.ndarray:
    return np.pad(stop_ids_BS, ((0, 0), (0, columns - stop_ids_BS.shape[1])), constant_values=-1)


def _with_value(array: np.ndarray, index: int, value) -> np.ndarray:
    array = array.copy()
    array[index] = value
    return array
