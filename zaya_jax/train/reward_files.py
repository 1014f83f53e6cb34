"""A reward model on disk and in use: a checkpoint of the hub's format, and its head in two files beside the weights.

    reward_head.safetensors    one tensor, reward_head.weight, float32 [D]
    reward_model.json          {"version": 1, "kind": "bradley-terry", "hidden_size": D, "margin": ..., "centring": ...}

Without them the directory is still a language model's. A score is that of a whole conversation, rendered by the
tokenizer's template as in training, at its last token.
"""

from __future__ import annotations

import functools
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save as to_bytes

from zaya_jax.checkpoint import resolve
from zaya_jax.checkpoint.files import read_json
from zaya_jax.checkpoint.safetensors import Archive, read_header
from zaya_jax.data.schema import Preference, parse_chat
from zaya_jax.data.turns import chat_turns
from zaya_jax.errors import mistake
from zaya_jax.loading import load
from zaya_jax.model import Zaya
from zaya_jax.model.execution import Layout
from zaya_jax.model.layers import positions_from_segments
from zaya_jax.model.layout import Variables
from zaya_jax.text.tokenizer import Tokenizer, require_tokenizer
from zaya_jax.train.reward_model import BradleyTerryConfig, segment_scores

HEAD_FILE, FACTS_FILE, TENSOR = "reward_head.safetensors", "reward_model.json", "reward_head.weight"
VERSION, KIND = 1, "bradley-terry"
_SHORTEST = 64  # lengths of rows are this, twice, four times, ... as long: few programs


class RewardModel(NamedTuple):
    """A model that scores conversations; see `load_reward_model`."""

    model: Zaya
    variables: Variables
    head_D: jax.Array
    tokenizer: Tokenizer


class PairReport(NamedTuple):
    """What a reward model makes of preferences.

    Attributes:
        pairs: how many.
        accuracy: share whose chosen reply has the higher score; equal scores count one half.
        ties: share of equal scores.
        margin: mean of the chosen score less the rejected one.
    """

    pairs: int
    accuracy: float
    ties: float
    margin: float


def head_files(config: BradleyTerryConfig, head_D: Any) -> dict[str, bytes]:
    """Names and contents of the files that make a checkpoint a reward model."""
    head = np.asarray(head_D, np.float32)
    facts = {"version": VERSION, "kind": KIND, "hidden_size": len(head)}
    facts |= {"margin": config.margin, "centring": config.centring}
    return {HEAD_FILE: to_bytes({TENSOR: head}), FACTS_FILE: f"{json.dumps(facts, indent=1)}\n".encode()}


def load_head(directory: pathlib.Path, hidden_size: int) -> np.ndarray:
    """The head of a reward model, float32 [D].

    Raises:
        UserError: there is none, it is of another kind or size, a file is damaged, or a weight is not finite.
    """
    file = directory / HEAD_FILE
    if not file.is_file() or not (directory / FACTS_FILE).is_file():
        fix = "train one with configs/rl/reward_model.py"
        raise mistake("is no reward model", where=directory, expected=f"{HEAD_FILE} and {FACTS_FILE}", fix=fix)
    facts = read_json(directory / FACTS_FILE)
    for key, value in {"version": VERSION, "kind": KIND, "hidden_size": hidden_size}.items():
        if facts.get(key) != value:
            where, fix = f"{directory / FACTS_FILE}, {key}", "take the files of one training run"
            raise mistake("does not fit", where=where, expected=repr(value), found=repr(facts.get(key))[:40], fix=fix)
    tensors = read_header(file)
    if set(tensors) != {TENSOR} or tensors[TENSOR].shape != (hidden_size,) or tensors[TENSOR].dtype != "F32":
        found = ", ".join(f"{info.name} {info.dtype}{list(info.shape)}" for info in tensors.values())
        raise mistake(
            "holds another tensor", where=file, expected=f"{TENSOR} F32[{hidden_size}]", found=found or "none"
        )
    head = np.array(Archive(directory, tensors, (file,)).read(TENSOR))
    if not np.isfinite(head).all():
        raise mistake("not finite", where=f"{file}, {TENSOR}", fix="train it again, at a lower rate")
    return head


def load_reward_model(
    path: str | os.PathLike[str],
    dtype: str = "bfloat16",
    layout: Layout | None = None,
    mesh: jax.sharding.Mesh | None = None,
) -> RewardModel:
    """Loads a reward model: `loading.load` and its head.

    Raises:
        UserError: as `loading.load` and `load_head`, or there is no tokenizer.
    """
    directory = resolve(path)
    model, variables, _ = load(path, dtype, layout, mesh)
    head = load_head(directory, model.config.hidden_size)
    exact = jnp.asarray(head, model.execution.exact_dtype)
    return RewardModel(model, variables, exact, require_tokenizer(directory))


@functools.partial(jax.jit, static_argnums=0)
def score(model: Zaya, variables: Variables, head_D: jax.Array, tokens_BT: jax.Array, segments_BT: jax.Array):
    """The score of each row's one conversation, [B] in the head's type; 0 for a row without any.

    Args:
        model, variables: in one layout.
        head_D: of the reward model.
        tokens_BT: token ids, padded on the right (or the left).
        segments_BT: 1 for tokens, 0 for padding.
    """
    positions_BT = positions_from_segments(segments_BT)
    outputs = model.apply(variables, tokens_BT, positions_BT, segments_BT, logits="none")
    return segment_scores(outputs.hidden_BTD, head_D, segments_BT)[:, 0]


def conversation_tokens(messages: Sequence[Mapping[str, Any]], tokenizer: Tokenizer) -> list[int]:
    """A conversation that ends with a reply, in tokens, as training rows have it (`data.turns`).

    Raises:
        UserError: the messages are not right, or the template refuses them.
    """
    chat = parse_chat({"messages": list(messages)})
    return [token for turn in chat_turns(chat, tokenizer) for token in turn.turn.tokens]


def score_conversations(
    reward: RewardModel, conversations: Sequence[Sequence[Mapping[str, Any]]], rows: int = 16
) -> np.ndarray:
    """Scores of conversations in their order, float64 [N].

    Args:
        reward: the model.
        conversations: messages, the last one the assistant's.
        rows: computed together; rows and their lengths are filled up, so that there are few programs.

    Raises:
        UserError: as `conversation_tokens`, or one is longer than the model has positions for.
    """
    return score_tokens(reward, [conversation_tokens(each, reward.tokenizer) for each in conversations], rows)


def score_tokens(reward: RewardModel, encoded: Sequence[Sequence[int]], rows: int = 16) -> np.ndarray:
    """As `score_conversations`, of conversations in tokens (`conversation_tokens`)."""
    limit = reward.model.config.max_position_embeddings
    for number, tokens in enumerate(encoded):
        if len(tokens) > limit:
            where = f"conversation {number}"
            raise mistake("too long", where=where, expected=f"at most {limit} tokens", found=len(tokens))
    order = sorted(range(len(encoded)), key=lambda index: len(encoded[index]))  # alike lengths together
    scores = np.zeros(len(encoded))
    for start in range(0, len(order), rows):
        chosen = order[start : start + rows]
        tokens_BT, segments_BT = _rows([encoded[index] for index in chosen], rows, limit)
        found = score(reward.model, reward.variables, reward.head_D, tokens_BT, segments_BT)
        scores[chosen] = np.asarray(found, np.float64)[: len(chosen)]
    return scores


def judge_pairs(reward: RewardModel, preferences: Sequence[Preference], rows: int = 16) -> PairReport:
    """How often the chosen reply of a preference has the higher score. Raises as `score_conversations`, or with none.

    The tools of a conversation are not rendered here: preferences with tools are refused.
    """
    if not preferences:
        raise mistake("no preferences", expected="at least one pair")
    if any(pair.chosen.tools for pair in preferences):
        raise mistake("preferences with tools cannot be scored", fix="leave them out")
    both = [[pair.chosen.messages for pair in preferences], [pair.rejected.messages for pair in preferences]]
    chosen, rejected = (score_conversations(reward, side, rows) for side in both)
    tied = chosen == rejected
    won = np.where(tied, 0.5, chosen > rejected)
    return PairReport(len(won), float(won.mean()), float(tied.mean()), float((chosen - rejected).mean()))


def _rows(encoded: Sequence[Sequence[int]], rows: int, limit: int) -> tuple[np.ndarray, np.ndarray]:
    longest, length = max(map(len, encoded)), _SHORTEST
    while length < longest:
        length *= 2
    length = min(length, limit)
    tokens_BT, segments_BT = (np.zeros((rows, length), np.int32) for _ in range(2))
    for row, tokens in enumerate(encoded):
        tokens_BT[row, : len(tokens)], segments_BT[row, : len(tokens)] = tokens, 1
    return tokens_BT, segments_BT
