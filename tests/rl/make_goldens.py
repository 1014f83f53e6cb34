"""Writes the goldens of `tests/rl/test_goldens.py` with two other implementations, on random inputs.

    verl 0.9.1 (Apache-2.0; pip download --no-deps verl==0.9.1, unzipped): advantages GRPO and Dr. GRPO, losses DPPO
        Binary-TV and clipped PPO with their gradients, aggregations, K3.
    prime-rl at commit 559b44772e47 (Apache-2.0; github.com/PrimeIntellect-ai/prime-rl): advantages MaxRL and Dr. GRPO,
        gradients of DPPO with the mask by the advantage's sign and with the symmetric one, K3.

    python -m tests.rl.make_goldens --verl=DIR --prime_rl=DIR

Needs torch and transformers (extra `parity`), omegaconf, jaxtyping and beartype. Only the files with the formulas are
imported: the packages around them, which start engines and clusters, are replaced by empty ones.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).parent / "goldens"
PRIME_RL_COMMIT = "559b44772e471d1538537b8805cc77f3824a5e64"
DELTA, CAP, LOW, HIGH, NORM = 0.1, 20.0, 0.2, 0.28, 7.0
MODES = ("token-mean", "seq-mean-token-sum", "seq-mean-token-sum-norm")


def package(name: str, folder: Path | None = None, **names: Any) -> types.ModuleType:
    """Puts a package in place whose own beginning is not run; its modules come from the folder."""
    module = types.ModuleType(name)
    module.__path__ = [str(folder)] if folder else []
    vars(module).update(names)
    sys.modules[name] = module
    return module


def inputs(seed: int, extreme: bool) -> dict[str, Any]:
    """Log-probabilities of 6 rollouts of 9 tokens, advantages of each rollout, and a mask; one rollout has no token.

    Args:
        extreme: some tokens have ratios beyond every cap, and beyond what an exponential may take.
    """
    random = np.random.default_rng(seed)
    mu = -random.exponential(1.5, (6, 9))
    logp = np.minimum(mu + random.normal(0, 0.6, mu.shape), -1e-3)
    if extreme:
        mu[0, :3], logp[0, :3] = (-6.0, -31.0, -95.0), (-0.4, -1.1, -0.7)
        mu[1, :3], logp[1, :3] = (-6.0, -31.0, -95.0), (-0.4, -1.1, -0.7)
        mu[2, :2], logp[2, :2] = (-0.2, -0.3), (-8.0, -40.0)
        mu[3, :2], logp[3, :2] = (-0.2, -0.3), (-8.0, -40.0)
    mask = random.random(mu.shape) < 0.8
    mask[:4, :3] = True
    mask[5] = False
    advantages = np.array([1.3, -0.7, 0.4, -1.9, 0.25, -0.6])
    return {"logp": logp, "mu": mu, "mask": mask.astype(np.float64), "advantages": advantages}


def import_verl(root: Path) -> types.ModuleType:
    """verl's file of algorithms."""
    for name in ("", ".trainer", ".workers", ".utils"):
        package(f"verl{name}", root.joinpath("verl", *name.split(".")))
    package("verl.trainer.config", AlgoConfig=type("AlgoConfig", (), {}))
    package("verl.workers.config", ActorConfig=type("ActorConfig", (), {}))
    if importlib.util.find_spec("tensordict") is None:
        package("tensordict", TensorDict=dict)
    groups = importlib.import_module("verl.utils.groupwise")
    utils = sys.modules["verl.utils"]
    utils.as_torch_index, utils.group_mean_std = groups.as_torch_index, groups.group_mean_std
    return importlib.import_module("verl.trainer.ppo.core_algos")


class VerlConfig(types.SimpleNamespace):
    """What verl's losses read of an actor's configuration."""

    def get(self, name: str, default: Any) -> Any:
        return getattr(self, name, default)


def verl_goldens(root: Path) -> dict[str, Any]:
    """Everything that verl computes."""
    import torch

    algorithms = import_verl(root)
    configs = {
        "dppo_tv": VerlConfig(clip_ratio=DELTA, clip_ratio_low=None, clip_ratio_high=None, clip_ratio_c=CAP),
        "vanilla": VerlConfig(clip_ratio=LOW, clip_ratio_low=LOW, clip_ratio_high=HIGH, clip_ratio_c=1e30),
    }
    case = inputs(0, extreme=True)
    tensors = {name: torch.tensor(array) for name, array in case.items()}
    spread = tensors["advantages"][:, None].expand(tensors["mask"].shape)
    found = {}
    for loss, config in configs.items():
        found[loss] = {}
        for mode in MODES:
            config.global_batch_info = {"loss_scale_factor": NORM}
            logp = tensors["logp"].clone().requires_grad_()
            function = algorithms.get_policy_loss_fn(loss)
            total, told = function(tensors["mu"], logp, spread, tensors["mask"], mode, config)
            total.backward()
            found[loss][mode] = {"loss": total.item(), "gradient": logp.grad.tolist(), "metrics": told}
    mild = inputs(1, extreme=False)
    k3 = algorithms.kl_penalty(torch.tensor(mild["mu"]), torch.tensor(mild["logp"]), "k3")
    return {
        "made_by": {"package": "verl", "version": (root / "verl/version/version").read_text().strip()},
        "inputs": plain(case),
        "losses": found,
        "k3": {"inputs": plain(mild), "values": k3.tolist()},
        "advantages": verl_advantages(algorithms),
    }


def verl_advantages(algorithms: types.ModuleType) -> dict[str, Any]:
    """Of 5 groups of 4 rewards, one of them all alike."""
    import torch

    rewards = np.random.default_rng(2).normal(size=(5, 4))
    rewards[1] = 1.0
    index = np.repeat(np.arange(5), 4)
    flat = torch.tensor(rewards).reshape(-1, 1)
    found = {}
    for name, by_std in (("grpo", True), ("dr_grpo", False)):
        values, _ = algorithms.compute_grpo_outcome_advantage(
            flat.clone(), torch.ones_like(flat), index, epsilon=1e-6, norm_adv_by_std_in_grpo=by_std
        )
        found[name] = values.reshape(5, 4).tolist()
    return {"rewards": rewards.tolist(), "eps": 1e-6, "std": "of the sample, divided by G - 1", **found}


def import_prime_rl(root: Path) -> tuple[types.ModuleType, ...]:
    """prime-rl's files of losses and of two advantages; rollouts are plain objects with a reward."""
    source = root / "src/prime_rl"
    for name in ("", ".trainer", ".trainer.rl", ".orchestrator", ".orchestrator.algo", ".configs", ".utils"):
        package(f"prime_rl{name}", source.joinpath(*filter(None, name.split("."))))
    names = ("CustomLossConfig", "DefaultLossConfig", "IPOLossConfig", "LossConfig")
    package("prime_rl.configs.trainer", **{name: type(name, (), {}) for name in names})
    package("prime_rl.configs.algorithm", GRPOAlgoConfig=object)
    package("prime_rl.utils.utils", import_object=None)
    package("verifiers").v1 = package("verifiers.v1")

    class Algorithm:
        def __init__(self, config: Any, pool: Any):
            pass

    package("prime_rl.orchestrator.algo.base", Algorithm=Algorithm, iter_trainable_traces=enumerate)

    def assign(trace: Any, advantage: float) -> None:
        trace.advantage = advantage

    package("prime_rl.orchestrator.algo.routing", assign_advantages=assign)
    files = ("trainer.rl.loss", "orchestrator.algo.max_rl", "orchestrator.algo.grpo")
    return tuple(importlib.import_module(f"prime_rl.{file}") for file in files)


def prime_rl_goldens(root: Path) -> dict[str, Any]:
    """Everything that prime-rl computes; it takes one rollout at a time."""
    import torch

    losses, max_rl, grpo = import_prime_rl(root)
    case = inputs(3, extreme=False)
    by_sign = types.SimpleNamespace(dppo_mask_high=DELTA, dppo_mask_low=DELTA, adv_tau=1.0, kl_tau=0.0)
    symmetric = types.SimpleNamespace(ipo_threshold=DELTA, adv_tau=1.0, kl_tau=0.0)
    found = {}
    for name, function, config in (
        ("by_sign", losses.default_loss_fn, by_sign),
        ("symmetric", losses.ipo_loss_fn, symmetric),
    ):
        gradients, masked = [], []
        for logp, mu, mask, advantage in zip(*(case[x] for x in ("logp", "mu", "mask", "advantages"))):
            logp = torch.tensor(logp).requires_grad_()
            spread = torch.full_like(logp, float(advantage)).detach()
            one = losses.LossInputs(logp, torch.tensor(mu), None, spread, torch.tensor(mask != 0))
            result = function(one, config)
            result.loss.backward()
            gradients.append(logp.grad.tolist())
            masked.append(result.metrics["is_masked"].item())
        found[name] = {"gradient": gradients, "masked_share": masked}
    k3 = losses.compute_importance_ratio_and_mismatch_kl(torch.tensor(case["logp"]), torch.tensor(case["mu"]))[2]
    return {
        "made_by": {"package": "prime-rl", "commit": PRIME_RL_COMMIT},
        "inputs": plain(case),
        "losses": found,
        "k3": k3.tolist(),
        "advantages": prime_rl_advantages(max_rl.MaxRLAlgorithm(None, None), grpo.GRPOAlgorithm),
    }


def prime_rl_advantages(max_rl: Any, grpo: Any) -> dict[str, Any]:
    """Of 6 groups of 8 accuracies, one without and one with nothing but right answers; in float32."""
    accuracies = (np.random.default_rng(4).random((6, 8)) < np.linspace(0.1, 0.9, 6)[:, None]).astype(float)
    accuracies[0], accuracies[5] = 0.0, 1.0
    plain_grpo = grpo(types.SimpleNamespace(length_penalty=None), None)
    found: dict[str, Any] = {"accuracies": accuracies.tolist()}
    for name, algorithm in (("max_rl", max_rl), ("dr_grpo", plain_grpo)):
        found[name] = []
        for group in accuracies:
            traces = [types.SimpleNamespace(reward=reward, advantage=None) for reward in group]
            asyncio.run(algorithm.score_group(traces))
            found[name].append([trace.advantage for trace in traces])
    return found


def plain(case: dict[str, np.ndarray]) -> dict[str, Any]:
    return {name: array.tolist() for name, array in case.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--verl", type=Path, required=True, help="folder that holds verl/")
    parser.add_argument("--prime_rl", type=Path, required=True, help="folder that holds src/prime_rl/")
    flags = parser.parse_args()
    import torch

    FOLDER.mkdir(exist_ok=True)
    for name, golden in (("verl", verl_goldens(flags.verl)), ("prime_rl", prime_rl_goldens(flags.prime_rl))):
        golden["made_by"] |= {"licence": "Apache-2.0", "torch": torch.__version__}
        (FOLDER / f"{name}.json").write_text(json.dumps(golden, indent=1) + "\n", encoding="utf-8")
        print(f"{name}: {', '.join(golden)}")


if __name__ == "__main__":
    main()
