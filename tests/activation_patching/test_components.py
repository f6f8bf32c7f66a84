"""Runs of components: their files, their tables, the choice on one half of the texts and the estimate on the other."""

from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from activation_patching.choose import half_of
from activation_patching.components.findings import component_effects
from activation_patching.components.set_rows import SETS, Ablation, _sets, ranked_heads, steps
from activation_patching.components.tables import tables_of
from common.clips.manifest import LABELS, read_manifest
from common.components.submodules import Parts
from common.errors import InputError
from common.run.run_folder import read_record
from tests.helpers.runs import interrupt, start
from tests.tiny_models.newer_families import save_muse_spark
from tests.tiny_models.tiny import LAYERS, save_clips

PARTS = {*(f"head_{n}" for n in range(4)), "attention", "mlp", "attention_tail", "mlp_tail"}


def test_a_run_writes_its_files_and_goes_on_after_a_kill(
    tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    clips = save_clips(tmp_path / "clips", texts=2, speakers=("a",))
    out, more = tmp_path / "out", ("--intervention", "components", "--max-pairs", "6")
    start("activation_patching", tiny_folder, clips, out, *more)
    assert "figures" in capsys.readouterr().out
    tables = {"effects.csv", "strongest.csv", "together.csv", "ablation.csv"}
    files = {"components.csv", "sets.csv", "ablated.csv", "run.json", "files.json", "components_heatmap.png", *tables}
    assert {f.name for f in out.iterdir()} == files
    rows = pd.read_csv(out / "components.csv")
    assert set(rows.part) == PARTS and {tuple(x) for _, x in rows.groupby("patch_id").layer} == {tuple(range(LAYERS))}
    direct, heads = [f"direct_{x}" for x in LABELS], rows[rows.part.str.startswith("head_")]
    at = ["true_pair_id", "layer"]
    attention = rows[rows.part == "attention"].set_index(at)[direct].sort_index()
    np.testing.assert_allclose(heads.groupby(at)[direct].sum(), attention, atol=1e-5)
    assert rows[rows.part.str.endswith("_tail")][direct].isna().all(axis=None)
    last = rows[(rows.part == "mlp") & (rows.layer == LAYERS - 1)]  # nothing follows it but the norm
    moved = last[[f"logit_{x}" for x in LABELS]].to_numpy() - last[[f"base_{x}" for x in LABELS]].to_numpy()
    assert np.corrcoef(moved.ravel(), last[direct].to_numpy().ravel())[0, 1] > 0.9
    half = half_of(read_manifest(clips), seed=0)
    for role in ("recipient_id", "donor_id"):  # no pair has clips of both halves
        assert (rows[role].map(half) == rows.half).all()
    assert rows.half.nunique() == 2 and rows.groupby("kind").true_pair_id.nunique().eq(6).all()
    sets = pd.read_csv(out / "sets.csv")
    assert sets.groupby("kind").layer.unique().map(list).tolist() == [[1, 2, 4, 8, 16]] * 2
    whole = sets[sets.layer == 4 * LAYERS]
    assert (whole.pred_patch == whole.pred_donor).all()
    together = pd.read_csv(out / "together.csv").set_index("heads")
    assert together.share[16].dropna().eq(1).all()
    ablated = pd.read_csv(out / "ablated.csv")
    assert {tuple(x) for _, x in ablated.groupby("ablation_id").layer} == {(1, 2, 4, 8, 16)} and set(ablated["heads"]) == set(
        SETS
    )
    everything = ablated[ablated.layer == 4 * LAYERS].set_index(["sample_id", "carry"])  # random ones too are all heads then
    one, other = (everything[everything["heads"] == name].filter(regex="^logit_").sort_index() for name in SETS)
    np.testing.assert_allclose(one, other, atol=1e-5)
    check = read_record(out)["self_check"]
    assert check["own parts put back - unpatched"] < 1e-4 and check["all attentions of B - B"] < 1e-4
    interrupt(out, "components.csv")
    start("activation_patching", tiny_folder, clips, out, *more)
    pd.testing.assert_frame_equal(pd.read_csv(out / "components.csv"), rows, atol=2e-6)


def test_what_cannot_be_told_is_one_line_and_writes_nothing(tmp_path: Path) -> None:
    clips = save_clips(tmp_path / "clips", texts=1, speakers=("a",))
    with pytest.raises(InputError, match="--intervention components: block 0 has further parts"):
        model = save_muse_spark(tmp_path / "model")
        start("activation_patching", model, clips, tmp_path / "out", "--intervention", "components", "--max-pairs", "4")
    assert not list((tmp_path / "out").glob("*.csv"))


def planted() -> pd.DataFrame:
    """Return rows of pairs in which head 1 of block 2 raises the target's logit by 2, and noise chooses among the others."""
    rng, rows = np.random.default_rng(0), []
    for number in range(160):
        words, own, target = rng.permutation(LABELS)[:3]
        for part in ("head_0", "head_1", "attention", "mlp", "mlp_tail"):
            for layer in range(6):
                rise = {x: rng.normal(0, 0.5) for x in LABELS}
                rise[target] += 2 * ((part, layer) == ("head_1", 2))
                base = {x: float(x == own) for x in LABELS}
                logits = {x: base[x] + rise[x] for x in LABELS}
                answer = max(logits, key=logits.__getitem__)
                labels = {"recipient_prosody_label": own, "donor_prosody_label": target}
                text = f"t{number % 20}"
                rows.append(
                    {
                        "patch_id": f"{number}|{part}",
                        "true_pair_id": str(number),
                        "kind": "prosody",
                        "target": target,
                        "part": part,
                        "half": number % 2,
                        "layer": layer,
                        **{f"logit_{x}": v for x, v in logits.items()},
                        **{f"base_{x}": v for x, v in base.items()},
                        "pred_base": own,
                        "pred_donor": target,
                        "pred_patch": answer,
                        "flip_to_target": int(answer == target),
                        "flip_from_base": int(answer != own),
                        "delta_logit": rise[target],
                        **labels,
                        **{f"{role}_semantic_label": words for role in ("recipient", "donor")},
                        **{f"{role}_text_id": text for role in ("recipient", "donor")},
                        **{f"{role}_speaker": "a" for role in ("recipient", "donor")},
                    }
                )
    return pd.DataFrame(rows)


def test_what_is_chosen_on_one_half_is_estimated_on_the_other() -> None:
    """The planted head comes out with its size; what noise has chosen is nothing on the texts that did not choose it."""
    rows = planted()
    tables = tables_of(rows)
    first, *others = component_effects(tables)
    assert (first.part, first.layer, first.chosen) == ("head_1", 2, 2)
    assert first.effect_logit.low < 2 < first.effect_logit.high and first.effect_logit.low > 1
    by_noise = [f for f in others if f.chosen == 1]
    assert len(by_noise) > 4 and abs(np.mean([f.effect_logit.value for f in by_noise])) < 0.06
    whole = tables["effects"].set_index(["part", "layer"]).effect_logit
    assert np.mean([whole[f.part, f.layer] for f in by_noise]) > 0.03  # on the texts that chose them too they look like something
    assert not any(f.part.endswith("_tail") for f in others)


def test_heads_are_ranked_on_the_other_half() -> None:
    """A head that works in one half alone leads in the ranking for the other."""
    rows = planted()
    rows.loc[(rows.half == 0) & (rows.part == "head_0") & (rows.layer == 5), "delta_logit"] += 9
    ranked = ranked_heads(rows)
    assert ranked["prosody"][1][:2] == [(5, 0), (2, 1)] and ranked["prosody"][0][0] == (2, 1)
    assert steps(ranked) == (1, 2, 4, 8, 12) and ranked_heads(rows[rows.half == 0]) == {}


def test_random_heads_are_others_of_the_same_blocks() -> None:
    """As many in each block as are chosen there; where a block has too few others, its chosen ones serve again."""
    parts, ranked = [Parts(None, 4, None)] * 3, [(2, 1), (0, 3), (2, 0), (2, 2), (1, 0)]
    chosen, random = (_sets(Ablation(None, "prosody", name), ranked, (1, 3, 5), parts, seed=0) for name in SETS)  # type: ignore[arg-type]
    for one, other in zip(chosen, random):
        assert Counter(c.block for c in one) == Counter(c.block for c in other) and len(set(other)) == len(other)
    for one, other in zip(chosen[:2], random[:2]):
        assert not set(one) & set(other)
    assert len(set(chosen[2]) & set(random[2])) == 2  # three of block 2's four
