"""The tuned lens on states whose last layer is known, and the options of the lens script that ask more of the model."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import logit_lens.run
from common.clips.audio import at_level, load_audio
from common.clips.manifest import Sample
from common.errors import InputError
from common.model.generation import said
from logit_lens.fitted import tuned_lens as fitted
from logit_lens.fitted.tuned_lens import fit, fit_on_other_texts


def test_a_map_that_is_there_is_found_on_texts_it_was_not_fitted_on() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(80, 12, generator=generator)
    turned = x @ torch.linalg.qr(torch.randn(12, 12, generator=generator))[0] * 2 + 3
    states = torch.stack([x, turned], dim=1)  # [clip, layer, d_model]
    texts = [f"t{i % 20:02d}" for i in range(80)]
    maps = fit_on_other_texts(states, texts)
    half = torch.tensor([sorted(set(texts)).index(t) % 2 for t in texts])
    read = torch.stack([maps[h][0](s) for h, s in zip(half.tolist(), x)])
    assert (read - turned).square().mean() < 0.02 * turned.var() < (x - turned).square().mean()


def test_states_that_tell_nothing_of_the_last_layer_are_shifted_and_no_more() -> None:
    x, y = torch.randn(2, 60, 6, generator=torch.Generator().manual_seed(1))
    translate = fit(x, x + 5 + 0 * y, strength=10.0)
    assert torch.allclose(translate(x), x + 5, atol=1e-4)


def test_a_clip_is_not_read_by_a_map_that_has_seen_its_text(monkeypatch: pytest.MonkeyPatch) -> None:
    states = torch.randn(16, 2, 4, generator=torch.Generator().manual_seed(2))  # [clip, layer, d_model]
    samples = [Sample(str(i), Path(), "", f"t{i // 2}", "sad", "happy", "", "", "") for i in range(16)]
    session: Any = SimpleNamespace(lm=None, layers=(0, 1), encode=lambda s: SimpleNamespace(ids=torch.zeros(1, 3), sample=s))

    def read_with(states: torch.Tensor) -> Callable[[Sample], torch.Tensor]:
        found = lambda lm, clip, where: states[int(clip.sample.sample_id)][:, None, None]  # noqa: E731
        monkeypatch.setattr(fitted, "states_at", found)
        maps = fitted.tuned_lens(session, samples)
        return lambda sample: maps(sample)[0](torch.ones(4))

    changed = states.clone()
    changed[:2] += 100  # both clips of t0, whose half is 0
    before, after = read_with(states), read_with(changed)
    for sample in samples[:4]:  # of t0 and t1
        assert torch.equal(before(sample), after(sample)) == (sample.text_id == "t0")
    with pytest.raises(InputError, match="--lens tuned: needs four texts at least"):
        fit_on_other_texts(states, ["a", "b"] * 8)


def test_the_first_word_said_is_the_answer() -> None:
    labels, words = ("happy", "sad", "angry"), ("happy", "sad", "angry")
    assert said("The speaker is SAD, not happy.", labels, words) == "sad"
    assert said("unhappy", labels, words) == "" and said("", labels, words) == ""
    assert said("说话人很不高兴", ("happy", "unhappy"), ("高兴", "不高兴")) == "unhappy"
    assert said("anger", ("a", "b"), ("anger", "an")) == "a"


def test_levels_are_matched_by_gain_alone(manifest: Path) -> None:
    clip = manifest.parent / "sad_0_happy_a.wav"
    plain, matched = load_audio(clip, 16_000), load_audio(clip, 16_000, level=-30)
    assert 10 * np.log10(np.mean(matched.astype(float) ** 2)) == pytest.approx(-30, abs=0.01)
    assert np.corrcoef(plain, matched)[0, 1] > 1 - 1e-6
    assert np.array_equal(at_level(plain * 7, -30), at_level(plain, -30)) or np.allclose(
        at_level(plain * 7, -30), at_level(plain, -30), atol=1e-6
    )


def test_tuned_and_generating_runs(tiny_folder: Path, manifest: Path, tmp_path: Path) -> None:
    shared = ["--model", str(tiny_folder), "--data", str(manifest), "--limit", "20"]
    logit_lens.run.main([*shared, "--generate", "3", "--out", str(tmp_path / "logit")])
    logit_lens.run.main([*shared, "--lens", "tuned", "--match-level", "--out", str(tmp_path / "tuned")])
    logit_lens.run.main([*shared, "--match-level", "--out", str(tmp_path / "level")])
    logit, tuned, level = (pd.read_csv(tmp_path / name / "lens.csv") for name in ("logit", "tuned", "level"))
    columns, last = [c for c in level if c.startswith("logit_")], level.layer.max()
    spoken = logit[(logit.spoke == 1) & (logit.layer == logit.layer.max())]
    table = pd.read_csv(tmp_path / "logit" / "generated.csv").iloc[0]
    assert table.n == 3 and table.agreement == pytest.approx((spoken.said == spoken.winner).mean(), abs=1e-5)
    assert logit[logit.spoke == 1].sample_id.nunique() == 3 and "said" not in level
    assert np.allclose(tuned[tuned.layer == last][columns], level[level.layer == last][columns], atol=1e-5)
    assert not np.allclose(tuned[tuned.layer == 1][columns], level[level.layer == 1][columns], atol=1e-2)
    assert not np.allclose(logit[columns], level[columns], atol=1e-4)
