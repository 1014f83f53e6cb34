"""Samples during training: the likeliest continuation is that of the sampler, noise depends on the seed alone."""

from tests.model.helpers import random_variables
from tests.train.models import tiny
from zaya_jax.model import Execution, Zaya
from zaya_jax.sampling.generate import generate
from zaya_jax.sampling.request import Request, Sampling
from zaya_jax.train.config import Samples
from zaya_jax.train.exporting import open_tokenizer
from zaya_jax.train.samples import continuations, open_prompts
from zaya_jax.train.trainer import Trainer

CONFIG = tiny(vocab_size=272)
PROMPTS = ("a", "line 7: ")


def sampled(temperature, seed=0, prompts=PROMPTS):
    trainer, (tokenizer, _) = Trainer(CONFIG, Execution()), open_tokenizer("bytes")
    variables = random_variables(CONFIG, Execution())
    samples = Samples(1, prompts, 12, temperature)
    opened = open_prompts(samples, tokenizer, None)
    return continuations(trainer, samples, variables, None, opened, tokenizer, seed), variables, tokenizer


def test_the_likeliest_is_what_the_sampler_says():
    texts, variables, tokenizer = sampled(0.0)
    requests = [
        Request(
            id=prompt,
            tokens=tokenizer.encode_prompt(prompt),
            seed=0,
            sampling=Sampling(temperature=0.0),
            max_new_tokens=12,
            stop_ids=tokenizer.stop_ids,
        )
        for prompt in PROMPTS
    ]
    found = generate(Zaya(CONFIG, Execution()), variables, requests, tokenizer=tokenizer)
    assert texts == [tokenizer.decode([t for t in c.tokens if t not in tokenizer.stop_ids]) for c in found]


def test_noise_is_of_the_seed():
    one, two, other = (sampled(1.0, seed)[0] for seed in (1, 1, 2))
    assert one == two != other
