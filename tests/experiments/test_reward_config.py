"""The configuration of reward models: at every scale it is a run that trains one."""

import importlib.util
import json

import pytest

from zaya_jax.train.config import RunConfig
from zaya_jax.train.plan import plan
from zaya_jax.train.plan_config import setup_of
from zaya_jax.train.settings import from_dict, to_dict


@pytest.fixture
def configured(root):
    spec = importlib.util.spec_from_file_location("reward_model", root / "configs/rl/reward_model.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return lambda argument: from_dict(RunConfig, module.get_config(argument).to_dict())


@pytest.mark.parametrize(
    "argument", ["", "scale=nano,data=d", "scale=small,devices=1,data=d", "scale=8b,runlocal", "scale=8b,initial=i"]
)
def test_it_is_a_run_that_trains_a_reward_model(configured, argument):
    config = configured(argument)
    assert from_dict(RunConfig, json.loads(json.dumps(to_dict(config)))) == config
    assert config.trainer().reward is not None and config.optimizer.weight_decay == 0
    made = "data" not in argument and ("nano" in argument or "runlocal" in argument or not argument)
    assert {source.kind for source in (*config.data.sources, *config.evaluation.sources)} == (
        {"made_preferences"} if made else {"preference"}
    )
    assert (config.steps == 20) == ("runlocal" in argument)


def test_that_of_the_8b_fits(configured):
    config = configured("scale=8b,initial=i,devices=8")
    assert config.tokens_per_step == 2**20
    assert plan(setup_of(config, "1x8", "mi300x")).fits
