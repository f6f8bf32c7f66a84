"""What the tool says of planted models: which cue wins, from which layer, until which layer the span controls the answer."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

import activation_patching.run
import logit_lens.run
from common.clips.manifest import LABELS
from tests.helpers.study import nothing_drawn
from tests.tiny_models.tiny import LAYERS, save_tiny_model


def outputs(model: Path, manifest: Path, out: Path) -> tuple[dict[str, pd.DataFrame], dict[str, pd.DataFrame]]:
    shared = ["--model", str(model), "--data", str(manifest), "--device", "cpu"]
    with nothing_drawn():
        logit_lens.run.main([*shared, "--limit", "40", "--out", str(out / "lens")])
        activation_patching.run.main([*shared, "--max-pairs", "20", "--out", str(out / "patching")])
    lens = {f.stem: pd.read_csv(f) for f in (out / "lens").glob("*.csv")}
    patching = {f.stem: pd.read_csv(f) for f in (out / "patching").glob("*.csv")}
    return lens, patching


@pytest.mark.parametrize("block", [0, 2, LAYERS - 1])
def test_where_everything_happens_in_one_block_all_rows_and_tables_say_so(block: int, manifest: Path, tmp_path: Path) -> None:
    """All computation in block k: every curve is flat up to l = k, steps, and is flat from l = k + 1."""
    lens, patching = outputs(save_tiny_model(tmp_path / "model", only_block=block), manifest, tmp_path)
    for rows in (lens["lens"], patching["patches"]):
        logits = rows[[f"logit_{label}" for label in LABELS]].to_numpy().reshape(-1, LAYERS + 1, len(LABELS))
        steps = np.abs(np.diff(logits, axis=1)).max(axis=(0, 2))  # [layer], from l to l + 1
        assert steps[block] > 0.1 and np.delete(steps, block).max() < 1e-4
    found = lens["layers"]
    assert (found.win_semantic + found.win_prosody + found.win_other).sub(1).abs().max() < 2e-6
    for values in (found.margin.to_numpy(), found.mass.to_numpy()):
        assert values[: block + 1].std() < 1e-4 and values[block + 1 :].std() < 1e-4
    for table in (patching["layers"], patching["effects"]):
        real = table[table.control == "none"] if "control" in table else table
        columns = [c for c in ("flip_to_target", "delta_logit", "flip_from_base", "effect", "effect_logit") if c in table]
        for _, of_kind in real.groupby("kind"):
            for column in columns:
                values = of_kind[column].to_numpy()
                assert values[: block + 1].std() < 1e-4 and values[block + 1 :].std() < 1e-4
            assert "flip_from_base" not in columns or (of_kind.flip_from_base.to_numpy()[block + 1 :] == 0).all()
    for half in patching["summary"].half_effect_layer.dropna():
        assert block < half <= block + 1


def test_a_model_that_ignores_the_audio_is_said_to_in_every_table(
    manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = save_tiny_model(tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    for name, weight in weights.items():
        if "self_attn.v_proj.weight" in name and "audio" not in name:  # no position tells another anything
            weights[name] = torch.zeros_like(weight)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    lens, patching = outputs(folder, manifest, tmp_path)
    assert len(lens["layers"]) == LAYERS + 1 and (lens["layers"].readable == 0).all()
    assert lens["crossover"].side[0] == "none" and pd.isna(lens["crossover"].crossing[0])
    assert lens["labels"].filter(like="answers_").sum().gt(0).sum() == 1  # one answer for all clips
    patches, summary = patching["layers"], patching["summary"]
    assert patches.delta_logit.abs().max() < 1e-4 and (patches.flip_from_base == 0).all()
    assert (summary.effect_lo <= 0).all() and summary.effect_logit.abs().max() < 1e-4 and summary.half_effect_layer.isna().all()
    record = json.loads((tmp_path / "patching" / "run.json").read_text())
    assert any("it could not have failed" in w for w in record["warnings"])
    assert "not shown" in capsys.readouterr().out
