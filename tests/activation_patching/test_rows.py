from pathlib import Path

import torch

from activation_patching.span.patch import Patched
from activation_patching.span.rows import pair_rows
from common.clips.manifest import LABELS, Sample
from common.clips.pairs import Pair
from common.model.readout import Readout


def test_pair_rows_by_hand() -> None:
    """A semantic pair: the recipient's words say sad, the donor's happy, so the target is happy (index 1)."""
    recipient = Sample("a", Path("a.wav"), "", "ta", "sad", "angry", "s", "en", "")
    donor = Sample("b", Path("b.wav"), "", "tb", "happy", "angry", "s", "en", "")
    patched = torch.tensor([[0, 5.0, 1, 0, 0], [0, 1.0, 0, 4, 0], [0, 2.0, 3, 0, 0]])  # [layer, label]
    pair, readout = Pair("semantic", recipient, donor), Readout(LABELS, LABELS, (1, 2, 3, 4, 5), LABELS)
    found = Patched(patched, "splice", 0.25, 0.5, "", patched[-1])
    rows = pair_rows(pair, found, pred_donor="happy", readout=readout, layers=range(3), reach=1)
    assert {r["engine"] for r in rows} == {"splice"} and [r["tied"] for r in rows] == [0, 0, 0]
    assert [r["pred_patch"] for r in rows] == ["happy", "angry", "sad"]
    assert {(r["target"], r["pred_base"], r["pred_donor"]) for r in rows} == {("happy", "sad", "happy")}
    assert [r["flip_to_target"] for r in rows] == [1, 0, 0]
    assert [r["flip_from_base"] for r in rows] == [1, 1, 0]
    assert [r["delta_logit"] for r in rows] == [3.0, -1.0, 0.0]
    assert [r["own_run_difference"] for r in rows] == [0.25, None, 0.5]
    assert [r["kv_shared"] for r in rows] == [0, 1, 0]
    assert {(r["recipient_id"], r["donor_id"], r["recipient_text_id"], r["donor_text_id"]) for r in rows} == {
        ("a", "b", "ta", "tb")
    }
