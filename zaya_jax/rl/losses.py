"""What a policy learns from a sampled token: DPPO with the binary total-variation mask, and clipped PPO.

Notation: pi is the policy's probability of the sampled token, mu that of the distribution it was sampled from, as the
engine recorded it, A the advantage. No term holds the policy near a reference; the divergence from mu is told as K3.
Both losses leave a token's gradient at -A * grad log pi where pi = mu.
"""

from __future__ import annotations

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp

from zaya_jax.errors import mistake

_LARGEST_LOG_RATIO = 20.0  # its exponential is a number in every type, and far beyond any cap


@dataclasses.dataclass(frozen=True)
class DppoConfig:
    """DPPO Binary-TV (arXiv 2602.04879).

    Attributes:
        delta: how far pi may be from mu; 0.1 in ZAYA1's report.
        cap: the largest weight pi / mu of a token; the report does not tell it, 20 is the reference's.
        symmetric: mask |pi - mu| > delta whatever the sign of A, as the report's sentence can be read. By default, as
            in the paper, only tokens that A would push further away.
    """

    delta: float = 0.1
    cap: float = 20.0
    symmetric: bool = False

    def __post_init__(self):
        if not self.delta > 0:
            raise mistake("is too small", where="DppoConfig.delta", expected="more than 0", found=self.delta)
        if not self.cap >= 1:
            expected = "1 or more, which an unchanged policy has"
            raise mistake("is too small", where="DppoConfig.cap", expected=expected, found=self.cap)


@dataclasses.dataclass(frozen=True)
class ClipConfig:
    """PPO's clipped objective (arXiv 1707.06347) with DAPO's two ends (clip-higher, arXiv 2503.14476).

    Attributes:
        low, high: pi / mu is clipped to 1 - low and 1 + high.
    """

    low: float = 0.2
    high: float = 0.28

    def __post_init__(self):
        if not 0 < self.low <= 1:
            raise mistake("out of range", where="ClipConfig.low", expected="0 < low <= 1", found=self.low)
        if not self.high > 0:
            raise mistake("is too small", where="ClipConfig.high", expected="more than 0", found=self.high)


@flax.struct.dataclass
class LossMetrics:
    """Sums over the tokens that count, to be added up over batches and divided by `tokens`; no gradient.

    Attributes:
        tokens: how many there are.
        kept: those that the trust region (mask or clip) leaves their gradient.
        clipped: DPPO: kept ones whose weight is the cap. PPO: those whose ratio the clip replaced.
        ratio: pi / mu.
        kl: K3, r - 1 - log r with r = pi / mu: an estimate of KL(mu || pi) in nats that is never negative
            (Schulman, "Approximating KL divergence", 2020). Here as in the losses log r is clipped to 20 either way.
    """

    tokens: jax.Array
    kept: jax.Array
    clipped: jax.Array
    ratio: jax.Array
    kl: jax.Array


def policy_loss(
    config: DppoConfig | ClipConfig, logp_BT: jax.Array, mu_BT: jax.Array, advantages: jax.Array, mask_BT: jax.Array
) -> tuple[jax.Array, LossMetrics]:
    """The loss that a config names: `dppo_loss` or `clip_loss`, whose arguments see."""
    loss = dppo_loss if isinstance(config, DppoConfig) else clip_loss
    return loss(config, logp_BT, mu_BT, advantages, mask_BT)


def dppo_loss(
    config: DppoConfig, logp_BT: jax.Array, mu_BT: jax.Array, advantages: jax.Array, mask_BT: jax.Array
) -> tuple[jax.Array, LossMetrics]:
    """-A * stop_gradient(min(pi / mu, cap)) * log pi of each token, where the trust region lets it be.

    A token is kept where A > 0 and pi - mu <= delta, or A < 0 and pi - mu >= -delta: one that already moved by more
    than delta is not pushed further, but may come back. With `symmetric` it is kept where |pi - mu| <= delta.

    Args:
        config: of the loss.
        logp_BT: log pi, with gradient.
        mu_BT: log mu, without.
        advantages: [B], or [B, T] for rows of several rollouts; no gradient.
        mask_BT: not 0 for the tokens that count; elsewhere loss and gradient are 0 whatever stands there.

    Returns:
        Loss of each token [B, T] (nats times advantage) and the metrics, in float32 (float64 for float64 arguments).
    """
    logp_BT, mu_BT, advantages_BT, real_BT = _prepared(logp_BT, mu_BT, advantages, mask_BT)
    fixed_BT = jax.lax.stop_gradient(logp_BT)
    ratio_BT = _ratio(fixed_BT, mu_BT)
    moved_BT = jnp.exp(fixed_BT) - jnp.exp(mu_BT)
    if config.symmetric:
        kept_BT = jnp.abs(moved_BT) <= config.delta
    else:
        kept_BT = jnp.where(advantages_BT > 0, moved_BT <= config.delta, moved_BT >= -config.delta)
        kept_BT |= advantages_BT == 0  # nothing pushes it
    weight_BT = jnp.minimum(ratio_BT, config.cap)
    # Not a product with 0: log pi may be -inf where the mask took the token.
    loss_BT = jnp.where(kept_BT & real_BT, -advantages_BT * weight_BT * logp_BT, 0)
    return loss_BT, _metrics(fixed_BT, mu_BT, kept_BT, kept_BT & (ratio_BT > config.cap), real_BT)


def clip_loss(
    config: ClipConfig, logp_BT: jax.Array, mu_BT: jax.Array, advantages: jax.Array, mask_BT: jax.Array
) -> tuple[jax.Array, LossMetrics]:
    """-min(r * A, clip(r, 1 - low, 1 + high) * A) of each token, r = pi / mu. Arguments as in `dppo_loss`.

    The ratio is taken to the engine's mu, not to a second pass of the policy over its rollouts.
    """
    logp_BT, mu_BT, advantages_BT, real_BT = _prepared(logp_BT, mu_BT, advantages, mask_BT)
    ratio_BT = _ratio(logp_BT, mu_BT)
    above_BT = (advantages_BT > 0) & (ratio_BT > 1 + config.high)
    below_BT = (advantages_BT < 0) & (ratio_BT < 1 - config.low)
    bounded_BT = jnp.where(above_BT, 1 + config.high, jnp.where(below_BT, 1 - config.low, ratio_BT))
    loss_BT = jnp.where(real_BT, -advantages_BT * bounded_BT, 0)
    clipped_BT = above_BT | below_BT
    return loss_BT, _metrics(jax.lax.stop_gradient(logp_BT), mu_BT, ~clipped_BT, clipped_BT, real_BT)


def _prepared(logp_BT, mu_BT, advantages, mask_BT):
    """In one type of at least 32 bits, advantages [B, 1] or [B, T], and numbers where nothing counts."""
    dtype = jnp.promote_types(jnp.promote_types(logp_BT.dtype, mu_BT.dtype), jnp.float32)
    real_BT = mask_BT != 0
    advantages_BT = advantages if advantages.ndim == logp_BT.ndim else advantages[..., None]
    mu_BT, advantages_BT = jax.lax.stop_gradient((mu_BT, advantages_BT))
    arrays = (logp_BT, mu_BT, advantages_BT)
    return *(jnp.where(real_BT, x.astype(dtype), 0) for x in arrays), real_BT


def _ratio(logp_BT: jax.Array, mu_BT: jax.Array) -> jax.Array:
    return jnp.exp(_log_ratio(logp_BT, mu_BT))


def _log_ratio(logp_BT: jax.Array, mu_BT: jax.Array) -> jax.Array:
    return jnp.clip(logp_BT - mu_BT, -_LARGEST_LOG_RATIO, _LARGEST_LOG_RATIO)


def _metrics(logp_BT, mu_BT, kept_BT, clipped_BT, real_BT) -> LossMetrics:
    log_ratio_BT = _log_ratio(logp_BT, mu_BT)
    k3_BT = jnp.expm1(log_ratio_BT) - log_ratio_BT

    def total(x_BT):
        return jnp.sum(jnp.where(real_BT, x_BT, 0), dtype=logp_BT.dtype)

    return LossMetrics(*map(total, (real_BT, kept_BT, clipped_BT, jnp.exp(log_ratio_BT), k3_BT)))
