"""Positive controls: the shipped model, asked for one cue, answers with it; and both experiments must find that."""

from pathlib import Path

import pandas as pd
import pytest

import activation_patching.run
import logit_lens.run
from common.clips.manifest import LABELS, read_manifest
from common.clips.pairs import KINDS

ROOT = Path(__file__).resolve().parents[2]
ASKED = {"words": "semantic", "voice": "prosody"}


def layers(script, prompt: str, out: Path, *more: str) -> pd.DataFrame:  # type: ignore[no-untyped-def]
    model = ["--model", str(ROOT / "data" / "reference_model"), "--device", "cpu"]
    script.main([*model, "--prompt", prompt, "--out", str(out), *more])
    return pd.read_csv(out / "layers.csv")


SLOW = pytest.mark.slow


@pytest.mark.parametrize(("prompt", "clips"), [("words", "24"), *(pytest.param(p, "120", marks=SLOW) for p in ASKED)])
def test_the_answer_is_the_cue_that_was_asked_for(prompt: str, clips: str, tmp_path: Path) -> None:
    last = layers(logit_lens.run, prompt, tmp_path, "--limit", clips).iloc[-1]
    assert last[f"win_{ASKED[prompt]}"] >= 0.9
    assert last.margin_lo > 0 if prompt == "voice" else last.margin_hi < 0


@pytest.mark.parametrize(("prompt", "pairs"), [("voice", "12"), *(pytest.param(p, "50", marks=SLOW) for p in ASKED)])
def test_patching_moves_the_cue_that_was_asked_for_and_not_the_other(prompt: str, pairs: str, tmp_path: Path) -> None:
    table = layers(activation_patching.run, prompt, tmp_path, "--max-pairs", pairs)
    effects = pd.read_csv(tmp_path / "effects.csv")
    for kind in KINDS:
        of_kind = table[(table.kind == kind) & (table.control == "none")].reset_index()
        if kind == ASKED[prompt]:
            assert of_kind.flip_to_target[0] >= 0.9 and of_kind.delta_logit_lo[0] > 1
        else:
            assert effects[effects.kind == kind].effect.abs().max() <= 0.05
            assert of_kind.flip_from_base.max() <= 0.1


def test_the_demo_clips_are_complete() -> None:
    """Every sentence in every prosody and voice, all prosodies of a sentence equally long."""
    import soundfile

    samples = read_manifest(ROOT / "data" / "demo" / "manifest.csv")
    assert len(samples) == 500 and sum(s.conflict for s in samples) == 400
    groups: dict[tuple[str, str], list] = {}
    for sample in samples:
        groups.setdefault((sample.text_id, sample.speaker), []).append(sample)
    for group in groups.values():
        assert [s.prosody_label for s in group] == list(LABELS) and len({s.semantic_label for s in group}) == 1
        assert len({soundfile.info(s.audio).frames for s in group}) == 1
