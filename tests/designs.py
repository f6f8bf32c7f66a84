"""Simulated clips and pairs with a known truth, as unbalanced as real data: who shares what with whom, and curves of noise."""

from dataclasses import dataclass

import numpy as np

from common.stats.design import Design, memberships

LAYERS = 13
SMOOTH = np.linalg.cholesky(0.8 ** np.abs(np.subtract.outer(np.arange(LAYERS), np.arange(LAYERS)))).astype(np.float32)
FIXED_BELOW = 5  # levels: fewer are held fixed, so the truth is that of just these


@dataclass(frozen=True)
class Simulated:
    """Noise of mean 0 [unit, draw, layer] of standard deviation `scale`, and the design that the statistics are told."""

    noise: np.ndarray
    design: Design
    scale: float


def curves(rng: np.random.Generator, n: int, draws: int) -> np.ndarray:
    """Return `n` random curves of standard deviation 1, correlated over the layers, for each draw: [n, draw, layer]."""
    return rng.standard_normal((n, draws, LAYERS), dtype=np.float32) @ SMOOTH.T


def zipf(rng: np.random.Generator, n: int, levels: int, power: float) -> np.ndarray:
    chance = np.arange(1.0, levels + 1) ** -power
    return np.concatenate([np.arange(levels), rng.choice(levels, size=n - levels, p=chance / chance.sum())])


def meld(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Every clip a text of its own; six speakers have 84 % of 900 clips, eighty others the rest."""
    speakers = np.concatenate([np.arange(86), rng.choice(6, size=752), 6 + rng.choice(80, size=62)])
    return {"texts": np.arange(900), "speakers": speakers}


def crossed(texts: int, speakers: int, sources: int = 1, kept: float = 1.0, seed: int = 0) -> dict[str, np.ndarray]:
    codes = np.indices((texts, speakers, sources)).reshape(3, -1)
    codes = codes[:, np.random.default_rng(seed).random(codes.shape[1]) < kept]
    return dict(zip(("texts", "speakers", "sources"), codes))


FACTORS = {
    "MELD-like": meld,
    "Zipf 1, 40 x 12": lambda rng: {"texts": rng.permutation(zipf(rng, 480, 40, 1)), "speakers": zipf(rng, 480, 12, 1)},
    "Zipf 1.5, 40 x 12": lambda rng: {"texts": rng.permutation(zipf(rng, 480, 40, 1.5)), "speakers": zipf(rng, 480, 12, 1.5)},
    "200 x 10": lambda rng: crossed(200, 10),
    "RAVDESS, 2 x 24": lambda rng: {n: np.tile(c, 6) for n, c in crossed(2, 24).items()},
    "EMIS, 104 x 12 x 3": lambda rng: crossed(104, 12, 3),
    "8 x 3": lambda rng: {n: np.tile(c, 4) for n, c in crossed(8, 3).items()},
    "40 x 12": lambda rng: crossed(40, 12, kept=0.7),
}
EFFECTS = {"texts": 0.6, "speakers": 0.4, "sources": 0.3}


def clips(name: str, seed: int, draws: int, *, labels: int = 0, effects: dict[str, float] = EFFECTS) -> Simulated:
    """Return clips of a design. Effects of few levels are as they are in the data: their mean over the clips is left out.

    With `labels` each text has one, in turn, whose effect on the curve is large and the same in all draws.
    """
    rng = np.random.default_rng(seed)
    codes = FACTORS[name](rng)
    n = len(codes["texts"])
    noise, variance = curves(rng, n, draws), 1.0
    for factor, of_units in codes.items():
        effect = effects[factor] * curves(rng, of_units.max() + 1, draws)[of_units]
        if of_units.max() + 1 < FIXED_BELOW:
            effect -= effect.mean(axis=0)
        else:
            variance += effects[factor] ** 2
        noise += effect
    label = codes["texts"] % max(1, labels)
    if labels:
        of_label = np.linspace(-1.5, 1.5, labels)[label]
        noise += (of_label - of_label.mean())[:, None, None]
    design = Design({f: memberships(c) for f, c in codes.items()}, label[:, None] if labels else None)
    return Simulated(noise, design, float(np.sqrt(variance)))


def pairs(
    seed: int, draws: int, *, text: float = 0.5, speaker: float = 0.4, texts: int = 40, n: int = 500, roles: int = 2
) -> Simulated:
    """Return pairs of texts drawn at random: each text is recipient in some and donor (or control's donor) in others."""
    rng = np.random.default_rng(seed)
    of = np.argsort(rng.random((n, texts)), axis=1)[:, :roles]
    s = rng.integers(12, size=n)
    effects, weights = curves(rng, texts, draws), (1, 0.7, -0.5)[:roles]
    noise = speaker * curves(rng, 12, draws)[s] + curves(rng, n, draws)
    for role, weight in enumerate(weights):
        noise += text * weight * effects[of[:, role]]
    design = Design({"texts": memberships(*of.T), "speakers": memberships(*[s] * roles)})
    return Simulated(noise, design, float(np.sqrt(1 + speaker**2 + text**2 * sum(w * w for w in weights))))
