"""What the tool says of planted models: which cue wins, from which layer, until which layer the span controls the answer."""

import json
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

import activation_patching.run
import logit_lens.run
from tests.tiny import LAYERS, save_tiny_model


def outputs(model: Path, manifest: Path, out: Path) -> tuple[dict[str, pd.DataFrame], dict[str, pd.DataFrame]]:
    shared = ["--model", str(model), "--data", str(manifest), "--device", "cpu"]
    logit_lens.run.main([*shared, "--out", str(out / "lens")])
    activation_patching.run.main([*shared, "--max-pairs", "100", "--out", str(out / "patching")])
    lens = {f.stem: pd.read_csv(f) for f in (out / "lens").glob("*.csv")}
    patching = {f.stem: pd.read_csv(f) for f in (out / "patching").glob("*.csv")}
    return lens, patching


@pytest.mark.parametrize("block", [1, 2])
def test_where_everything_happens_in_one_block_all_tables_say_so(block: int, manifest: Path, tmp_path: Path) -> None:
    lens, patching = outputs(save_tiny_model(tmp_path / "model", only_block=block), manifest, tmp_path)
    decided = lens["decision_layer"].iloc[0]
    assert pd.isna(decided.crossing) or decided.crossing <= 1 or block < decided.crossing <= block + 1
    health = lens["layers"]
    assert health.kl[: block + 1].std() < 1e-5 and health.kl[0] > 0.01 and health.kl[block + 1 :].max() < 1e-5
    assert (health.win_semantic + health.win_prosody + health.win_other).sub(1).abs().max() < 2e-6
    layers = patching["layers"]
    for _, table in layers[layers.control == "none"].groupby("kind"):
        for column in ("flip_to_target", "delta_logit", "answer_donor", "answer_recipient", "flip_from_base"):
            values = table[column].to_numpy()
            assert values[: block + 1].std() < 1e-4 and values[block + 1 :].std() < 1e-4
        assert (table.answer_recipient.to_numpy()[block + 1 :] == 1).all() and table.answer_donor.iloc[0] == 1
    for _, found in patching["release_layer"].iterrows():
        assert pd.isna(found.release_layer) or found.release_layer == block + 1
    itself = layers[layers.control == "itself"]
    assert len(itself) and itself.delta_logit.abs().max() < 1e-4 and (itself.flip_from_base == 0).all()


def test_a_model_that_ignores_the_audio_is_said_to_in_every_statement(
    manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = save_tiny_model(tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    for name, weight in weights.items():
        if "self_attn.v_proj.weight" in name and "audio" not in name:  # no position tells another anything
            weights[name] = torch.zeros_like(weight)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    lens, patching = outputs(folder, manifest, tmp_path)
    layers = lens["layers"]
    assert layers.win_prosody_excess.abs().max() < 1e-6 and (layers.win_prosody_excess_lo <= 0).all()
    assert layers.win_semantic_excess.abs().max() < 1e-6 and layers.margin_excess.abs().max() < 1e-4
    assert pd.isna(lens["decision_layer"].decision_layer[0]) and lens["decision_layer"].side[0] == "none"
    assert lens["labels"].filter(like="answers_").sum().gt(0).sum() == 1  # one answer for all clips
    patches = patching["layers"]
    assert patches.delta_logit.abs().max() < 1e-4 and (patches.flip_from_base == 0).all() and (patches.flip_gain == 0).all()
    assert patching["release_layer"].release_layer.isna().all()
    assert (patching["paired"].p_holm.dropna() == 1).all() and (patching["transfer"].p_holm.dropna() == 1).all()
    assert (patches.n_eligible == 0).all() and patches.recovery.isna().all() and patches.directedness.isna().all()
    contrast = patching["contrast"]
    assert contrast.delta_logit.abs().max() < 1e-4
    record = json.loads((tmp_path / "patching" / "run.json").read_text())
    assert any("it could not have failed" in w for w in record["warnings"])
    printed = capsys.readouterr().out
    assert "neither cue is shown to be ahead" in printed and "at no layer is one cue decided for" in printed
    assert printed.count("it is not shown that the span carries it") == 2 and printed.count("There is no layer to name") == 2
    assert printed.count("no influence of the") == 2 and "below half" not in printed
    assert len(layers) == LAYERS + 1
