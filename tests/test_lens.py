from pathlib import Path

import torch

from common.samples import Sample
from logit_lens.lens import lens_rows


def test_lens_rows_by_hand() -> None:
    """Words say sad (index 2), voice says angry (index 3)."""
    sample = Sample("c", Path("c.wav"), "", "t", "sad", "angry", "s", "en", "")
    logits = torch.tensor([[0, 0, 2.0, 0.5, 0], [0, 0, 1.0, 3.0, 0], [0, 9.0, 1.0, 1.0, 0]])
    rows = lens_rows(sample, logits)
    assert [r["layer"] for r in rows] == [0, 1, 2]
    assert [r["winner"] for r in rows] == ["sad", "angry", "happy"]
    assert [r["outcome"] for r in rows] == ["semantic", "prosody", "other"]
    assert [r["margin"] for r in rows] == [-1.5, 2.0, 0.0]  # prosody minus semantic: above 0 follows the voice
    assert [rows[0][f"logit_{n}"] for n in ("neutral", "happy", "sad", "angry", "surprised")] == [0, 0, 2.0, 0.5, 0]
