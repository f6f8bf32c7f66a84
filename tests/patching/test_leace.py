"""Subspaces of a label: what the library gives in all of d_model, and a random one that tells nothing of it."""

from functools import partial

import pytest
import torch
from concept_erasure import LeaceFitter

from common.patching.leace import everything, exchange_of, learn, matched, nothing, scale_of


def sample(n: int, d_model: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return states of unequal variance around 3, which tell their label in two directions, and the labels."""
    torch.manual_seed(seed)
    codes = torch.arange(n) % 5
    directions = torch.randn(2, d_model)
    states = 3 + torch.randn(n, d_model) * torch.linspace(0.1, 2, d_model)
    return states + torch.randn(5, 2)[codes] @ directions, codes


@pytest.mark.parametrize("n, d_model", [(60, 48), (200, 48), (40, 300)])
def test_it_is_the_librarys_leace_whether_samples_or_dimensions_are_fewer(n: int, d_model: int) -> None:
    states, codes = sample(n, d_model)
    one_hot = torch.nn.functional.one_hot(codes).double()
    expected = LeaceFitter.fit(states.double(), one_hot, constrain_cov_trace=False).eraser(states.double())
    own, _ = learn(states, codes, rank=4, seed=0)
    assert own.right.shape == (4, d_model)
    torch.testing.assert_close(states - own.part(states - own.mean), expected.float(), atol=1e-4, rtol=1e-4)
    assert (expected - states).abs().max() > 0.1


def test_nothing_linear_is_left_of_the_label_and_the_random_subspace_holds_nothing_of_it() -> None:
    states, codes = sample(300, 24)
    own, random = learn(states, codes, rank=4, seed=0)
    means = torch.stack([states[codes == c].mean(dim=0) for c in range(5)])

    def apart(x: torch.Tensor) -> float:
        return float((torch.stack([x[codes == c].mean(dim=0) for c in range(5)]) - x.mean(dim=0)).norm())

    assert apart(states - own.part(states - own.mean)) < 1e-3 * apart(states)
    assert (random.right @ (means - own.mean).T).abs().max() < 1e-3 < 0.5 < (own.right @ (means - own.mean).T).abs().max()
    assert random.right.shape == own.right.shape and not torch.allclose(random.right, own.right)
    for subspace in (own, random):  # projections
        torch.testing.assert_close(subspace.right @ subspace.left, torch.eye(4), atol=1e-4, rtol=0)
    told = [own.label(x) == int(c) for x, c in zip(states, codes)]
    assert sum(told) / len(told) > 0.6


def test_a_smaller_rank_keeps_what_tells_most() -> None:
    states, codes = sample(300, 24)
    whole, part = (learn(states, codes, rank=r, seed=0)[0] for r in (4, 1))
    torch.testing.assert_close(part.right, whole.right[:1])


def test_states_that_do_not_vary_have_no_subspace() -> None:
    states = torch.randn(24).expand(50, 24).clone()
    own, random = learn(states, torch.arange(50) % 5, rank=4, seed=0)
    assert own.right.shape == random.right.shape == (0, 24) and own.label(states[0]) == -1
    assert torch.equal(states - own.part(states - own.mean), states)


def test_what_is_erased_becomes_that_of_the_mean() -> None:
    states, codes = sample(60, 24)
    own, _ = learn(states, codes, rank=4, seed=0)
    erased = scale_of(-1, {0: own})(0, states)
    assert own.part(erased - own.mean).abs().max() < 1e-3 < 0.1 < own.part(states - own.mean).abs().max()


def test_identities_of_an_exchange() -> None:
    """The whole space is the donor's state; nothing, and the recipient's own state, change nothing, exactly."""
    h, donated = torch.randn(2, 3, 1, 7, 24)  # [clip, layer, 1, pos, d_model]
    states, codes = sample(300, 24)
    own = [learn(states, codes, rank=4, seed=0)[0]] * 3
    for layer in range(3):
        torch.testing.assert_close(exchange_of([everything(24)] * 3, donated)(layer, h[layer]), donated[layer])
        assert torch.equal(exchange_of([nothing(24)] * 3, donated)(layer, h[layer]), h[layer])
        assert torch.equal(exchange_of(own, h)(layer, h[layer]), h[layer])
        assert not torch.allclose(exchange_of(own, donated)(layer, h[layer]), h[layer], atol=0.1)


@pytest.mark.parametrize("edit", ["scale", "exchange"])
def test_a_random_subspace_changes_as_much(edit: str) -> None:
    h, donated = torch.randn(2, 1, 1, 7, 24)
    states, codes = sample(300, 24)
    own, random = ([s] for s in learn(states, codes, rank=4, seed=0))
    of = partial(scale_of, 2.0, own) if edit == "scale" else partial(exchange_of, own, donated)
    changes = [of(other)(0, h[0]) - h[0] for other in (None, random)]
    torch.testing.assert_close(*(c.norm(dim=-1) for c in changes), atol=1e-4, rtol=1e-4)
    assert (changes[0] - changes[1]).abs().max() > 0.1
    assert torch.equal(matched(torch.zeros(2, 24), torch.ones(2, 24)), torch.zeros(2, 24))
