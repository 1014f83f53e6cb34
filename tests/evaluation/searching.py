"""A checkpoint with room for prompts, problems, and settings small enough for it."""

import dataclasses
import json
from pathlib import Path

import numpy as np

from tests.environments.rows import INSTRUCTIONS, INTEGER, write
from tests.sampling.models import CONFIG, tiny
from zaya_jax.checkpoint import SpecialTokens, save
from zaya_jax.text.byte_level import BOS_ID, FIRST_BYTE_ID, IM_END_ID, PAD_ID, THINK_END_ID, write_tokenizer

CONTEXT = 512
WORDING = (
    "[aggregate]\n{count}:\n{attempts}\nGo.\n[refine]\n{attempts}\nGo on.\n[attempt]\n<{number}>{tail}</{number}>\n"
)
NO_COMMA = INSTRUCTIONS | {"instructions": INSTRUCTIONS["instructions"][:1]}


# What the model says now and then, and what it is to say instead: commas, and ends of reasoning and of answers.
_INSTEAD = {"+": FIRST_BYTE_ID + ord(","), "/": THINK_END_ID, ">": IM_END_ID}


def write_roomy(directory: Path) -> Path:
    """The tiny model of the sampler's tests, for texts of 512 tokens, with the byte-level tokenizer."""
    tokens = SpecialTokens(bos=BOS_ID, eos=(IM_END_ID,), pad=PAD_ID)
    config = dataclasses.replace(CONFIG, max_position_embeddings=CONTEXT)
    order = np.arange(CONFIG.vocab_size)
    for said, instead in _INSTEAD.items():
        place = FIRST_BYTE_ID + ord(said)
        order[place], order[instead] = order[instead], order[place]
    variables = tiny()[1]
    params = variables["params"] | {"embedding": variables["params"]["embedding"][order]}
    save(directory, config, variables | {"params": params}, "stacked", dtype="float32", special_tokens=tokens)
    write_tokenizer(directory)
    return directory


def write_problems(path: Path, *names: str, row: dict = NO_COMMA) -> Path:
    """Problems whose answers are right if there is no comma in them: some of a random model's are."""
    return write(path, *(row | {"id": name, "problem": f"Say {name}."} for name in names))


def write_sums(path: Path, *names: str) -> Path:
    """Problems with a number for an answer."""
    return write_problems(path, *names, row=INTEGER)


def read(path: Path) -> list[dict]:
    """The records of a jsonl file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
