"""Fit the linear subspace of a label (LEACE), and the functions that exchange or scale it in a state.

LEACE (Belrose et al. 2023, arXiv 2306.03819) by the library concept-erasure, with its shrunken covariance. It is given the
samples in the axes that they span, fewer than `d_model` where they are few: the result is the same, the cost is not. Its bound
on the trace of the covariance is left off: with it the map is a mixture of two projections, no longer one of rank labels - 1.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from concept_erasure import LeaceEraser, LeaceFitter

from common.patching.rerun import Edit, States

_ROUNDING = 1e-13  # of the states' sum of squares: what varies less is the rounding of float32


@dataclass(frozen=True)
class Subspace:
    """An oblique projection P = left @ right: left [d_model, rank], right [rank, d_model].

    mean: [d_model], of the states that it was learned from. centres: [label, rank], where the labels' means lie in it.
    """

    left: torch.Tensor
    right: torch.Tensor
    mean: torch.Tensor
    centres: torch.Tensor

    def part(self, x: torch.Tensor) -> torch.Tensor:
        """Return P x of differences of states [..., d_model]."""
        return (x @ self.right.T) @ self.left.T

    def label(self, state: torch.Tensor) -> int:
        """Return the label whose mean is nearest to a state [d_model] in the subspace, where the states have unit variance.

        -1 in a subspace of rank 0, which tells none.
        """
        if not len(self.right):
            return -1
        return int((self.right @ (state - self.mean) - self.centres).square().sum(dim=1).argmin())

    def to(self, device: torch.device) -> "Subspace":
        return Subspace(*(t.to(device) for t in (self.left, self.right, self.mean, self.centres)))


def everything(d_model: int) -> Subspace:
    """Return the whole space: to exchange it is to put in the donor's state."""
    return Subspace(torch.eye(d_model), torch.eye(d_model), torch.zeros(d_model), torch.zeros(0, d_model))


def nothing(d_model: int) -> Subspace:
    return Subspace(torch.zeros(d_model, 0), torch.zeros(0, d_model), torch.zeros(d_model), torch.zeros(0, 0))


def learn(states: torch.Tensor, codes: torch.Tensor, *, rank: int, seed: int) -> tuple[Subspace, Subspace]:
    """Return the subspace of a label, of rank `rank` at most, and a random one of the same rank that tells nothing of it.

    `states` [sample, d_model] with the labels' `codes` [sample] from 0 on. The random one is drawn where LEACE works, in the
    coordinates in which the states have unit variance, at right angles to the label's: it follows the directions in which the
    states vary, and its coordinates are uncorrelated with the label. Where nothing varies both are of rank 0.
    """
    x, mean = states.double(), states.double().mean(dim=0)
    one_hot = torch.nn.functional.one_hot(codes).double()
    axes = _axes(x - mean, least=_ROUNDING * float(x.square().sum()))  # [d_model, axis]
    along = (x - mean) @ axes  # [sample, axis], uncorrelated
    spread = _shrunk(along.square().sum(dim=0) / len(x), len(x), states.shape[1])
    eraser = _leace(along, one_hot, spread)
    rank = min(rank, int((eraser.proj_right != 0).any(dim=1).sum()))
    own = eraser.proj_right[:rank] * spread.sqrt()  # [rank, axis], at right angles to each other
    drawn = torch.randn(axes.shape[1], min(rank, axes.shape[1] - rank), generator=torch.Generator().manual_seed(seed)).double()
    drawn = torch.linalg.qr(drawn - own.T @ (own @ drawn)).Q.T

    def subspace(whitened: torch.Tensor) -> Subspace:
        left, right = (spread.sqrt() * whitened) @ axes.T, (whitened / spread.sqrt()) @ axes.T
        centres = (one_hot.T @ (x - mean) @ right.T) / one_hot.sum(dim=0)[:, None]
        return Subspace(*(t.float() for t in (left.T, right, mean, centres)))

    return subspace(own), subspace(drawn)


def _axes(centred: torch.Tensor, *, least: float) -> torch.Tensor:
    """Return orthonormal axes [d_model, axis] along which the samples [sample, d_model] are uncorrelated, where they vary."""
    few = len(centred) < centred.shape[1]
    squares, vectors = torch.linalg.eigh(centred @ centred.T if few else centred.T @ centred)
    kept = squares > least
    return (centred.T @ vectors[:, kept]) / squares[kept].sqrt() if few else vectors[:, kept]


def _shrunk(variances: torch.Tensor, samples: int, d_model: int) -> torch.Tensor:
    """Return the eigenvalues of concept_erasure.optimal_linear_shrinkage, from those of the covariance that are not 0."""
    trace, squares = variances.sum(), variances.square().sum()
    spread = squares - trace**2 / d_model
    kept = (1 - trace**2 / samples / spread).clip(0, 1) if spread > 0 else torch.zeros_like(trace)
    return kept * variances + (1 - kept) * trace / d_model


def _leace(along: torch.Tensor, one_hot: torch.Tensor, spread: torch.Tensor) -> LeaceEraser:
    axes, labels = along.shape[1], one_hot.shape[1]
    if not axes:
        return LeaceEraser(along.new_zeros(0, labels), along.new_zeros(labels, 0), None)
    # Shrunken already, with those axes in mind along which nothing varies: the fitter would know but these.
    fitter = LeaceFitter(axes, labels, dtype=along.dtype, shrinkage=False, constrain_cov_trace=False).update(along, one_hot)
    fitter.sigma_xx_ = torch.diag(spread) * (len(along) - 1)
    return fitter.eraser


def matched(change: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Return `change` [..., d_model] with the norm of the change that it is to be `like`, position by position."""
    norms = change.norm(dim=-1, keepdim=True)
    return change * torch.where(norms > 0, like.norm(dim=-1, keepdim=True) / norms, 0)


ByLayer = Mapping[int, Subspace]


def exchange_of(own: ByLayer, donated: States, instead: ByLayer | None = None) -> Edit:
    """Return the edit that puts the donor's part of the subspaces `own` of the layers in the place of the states' own.

    `donated`: the donor's states [1, pos, d_model] of each layer. `instead`: as in scale_of.
    """

    def change(subspace: Subspace, layer: int, h: torch.Tensor) -> torch.Tensor:
        return subspace.part(donated[layer].to(h.device).float() - h)

    return _edit(change, own, instead)


def scale_of(factor: float, own: ByLayer, instead: ByLayer | None = None) -> Edit:
    """Return the edit that multiplies the states' part in the subspaces `own` of the layers by 1 + `factor`.

    A factor of -1 erases it: it becomes that of the states' mean. With other subspaces `instead`, the part in these is changed,
    by as much: the change has the norm that that of `own` would have.
    """

    def change(subspace: Subspace, layer: int, h: torch.Tensor) -> torch.Tensor:
        return factor * subspace.part(h - subspace.mean)

    return _edit(change, own, instead)


def _edit(change: Callable[[Subspace, int, torch.Tensor], torch.Tensor], own: ByLayer, instead: ByLayer | None) -> Edit:
    def edited(layer: int, h: torch.Tensor) -> torch.Tensor:
        found = [change(s[layer].to(h.device), layer, h.float()) for s in (own, instead) if s is not None]
        return h.float() + (found[0] if instead is None else matched(found[1], found[0]))

    return edited
