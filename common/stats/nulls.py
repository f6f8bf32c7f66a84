"""What comes out when nothing but the frequencies of labels is at work; as values of units, so that they have their intervals."""

import numpy as np

from common.stats.covariance import Floats


def shuffled_hits(groups: np.ndarray, answers: np.ndarray, targets: np.ndarray, counted: np.ndarray) -> Floats:
    """Return values [unit, layer] whose mean is the share of answers that hit their target with the targets shuffled in a group.

    `groups`, `targets` [unit], `answers` [unit, layer] are codes; only units that are `counted` [unit, layer] shuffle and hit.
    Linearised: a group of n with a answers k and t targets k has the sum over k of a t / n hits in expectation.
    """
    values = np.zeros(answers.shape)
    k = 1 + max(answers.max(initial=0), targets.max(initial=0))
    rows = groups.max(initial=0) + 1
    for layer, (answer, here) in enumerate(zip(answers.T, counted.T)):
        g, a, t = groups[here], answer[here], targets[here]
        said = np.bincount(g * k + a, minlength=rows * k).reshape(rows, k)
        wanted = np.bincount(g * k + t, minlength=rows * k).reshape(rows, k)
        n = np.maximum(said.sum(axis=1), 1)
        both = (said * wanted).sum(axis=1) / n**2
        values[here, layer] = wanted[g, a] / n[g] + said[g, t] / n[g] - both[g]
    return values


def label_prior(logits: Floats, of_words: np.ndarray, of_voice: np.ndarray) -> Floats:
    """Return values [unit, layer] whose mean is the margin with the logits [label, unit, layer] shuffled over all clips.

    That is what label habits and the composition of the clips make of it: 0 where each label is as often the voice's as the
    words', and all of the margin where every clip has the same logits. Linearised.
    """
    labels = np.arange(len(logits))[:, None]
    oftener = (of_voice == labels).mean(axis=1) - (of_words == labels).mean(axis=1)  # [label]
    mean = logits.mean(axis=1)  # [label, layer]
    return mean[of_voice] - mean[of_words] + np.tensordot(oftener, logits, 1) - oftener @ mean
