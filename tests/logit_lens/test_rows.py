from dataclasses import replace
from pathlib import Path

import pytest
import torch

from common.clips.manifest import LABELS, Sample
from common.model.readout import Readout
from logit_lens.choose import choose_clips
from logit_lens.rows import lens_rows

# A vocabulary of seven, of which the labels are tokens 1 to 5.
READOUT = Readout(LABELS, LABELS, (1, 2, 3, 4, 5), LABELS)
CLIP = Sample("c", Path("c.wav"), "", "t", "sad", "angry", "s", "en", "")


def test_lens_rows_by_hand() -> None:
    """Words say sad (index 2), voice says angry (index 3)."""
    five = torch.tensor([[0, 0, 2.0, 0.5, 0], [0, 0, 1.0, 3.0, 0], [0, 9.0, 1.0, 1.0, 0]])
    logits = torch.cat([torch.tensor([[2.5], [4.0], [0.0]]), five, torch.tensor([[2.1], [0.0], [0.0]])], dim=1)
    rows = lens_rows(READOUT, CLIP, logits, five, layers=range(3))
    assert [r["layer"] for r in rows] == [0, 1, 2]
    assert [r["winner"] for r in rows] == ["sad", "angry", "happy"]
    assert [r["outcome"] for r in rows] == ["semantic", "prosody", "other"]
    assert [r["margin"] for r in rows] == [-1.5, 2.0, 0.0]  # prosody minus semantic: above 0 follows the voice
    assert [rows[0][f"logit_{n}"] for n in ("neutral", "happy", "sad", "angry", "surprised")] == [0, 0, 2.0, 0.5, 0]
    assert [r["tied"] for r in rows] == [0, 0, 0]
    assert rows[2]["mass"] == pytest.approx(1 - 2 / (4 + 2 * torch.e + torch.e**9), abs=1e-5)


def test_a_congruent_clip_is_a_win_of_both_or_of_neither() -> None:
    logits = torch.tensor([[0, 0, 0, 2.0, 0, 0, 0], [0, 0, 3.0, 2.0, 0, 0, 0]])
    rows = lens_rows(READOUT, replace(CLIP, prosody_label="sad"), logits, logits[:, 1:6], layers=range(2))
    assert [r["outcome"] for r in rows] == ["both", "other"] and [r["margin"] for r in rows] == [0, 0]


def test_a_tie_is_marked_and_the_first_label_taken() -> None:
    logits = torch.tensor([[0, 1.0, 2.0, 2.0, 0, 0, 0], [0, 1.0, 1.0, 2.0, 0, 0, 0]])
    rows = lens_rows(READOUT, CLIP, logits, logits[:, 1:6], layers=range(2))
    assert [(r["tied"], r["winner"]) for r in rows] == [(1, "happy"), (0, "sad")]


def test_congruent_clips_come_beside_at_most_as_many_as_conflict_clips() -> None:
    clips = [replace(CLIP, sample_id=str(i), prosody_label="sad" if i % 3 else "angry") for i in range(12)]
    chosen, counts = choose_clips(clips, limit=3, seed=0)
    assert [s.conflict for s in chosen] == [True] * 3 + [False] * 3
    assert counts == {
        "clips": 3, "congruent clips": 3, "dropped": {"over --limit": 1, "congruent over the number kept": 5}, "sources": [""],
    }  # fmt: skip
