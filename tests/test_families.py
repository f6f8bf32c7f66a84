"""Both scripts on a saved checkpoint of each family: what a user does with it, on random weights."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

import activation_patching.run
import logit_lens.run
from tests.families import FAMILIES, without_vision_tower
from tests.tiny import save_manifest

SCRIPTS = {"logit_lens": logit_lens.run.main, "activation_patching": activation_patching.run.main}
BLOCKS = {"gemma3n": 5}
ADAPTERS = {"granite_speech": ["default"], "phi4_multimodal": ["speech"]}
CLIPS = {"angry_0_happy_a": 0.4, "angry_0_sad_a": 0.47, "happy_1_sad_a": 0.61, "sad_0_happy_a": 0.75}  # seconds


@pytest.fixture(autouse=True)
def _vision_left_out() -> Iterator[None]:
    with without_vision_tower():
        yield


@pytest.fixture(scope="session")
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return FAMILIES[request.param](tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="session")
def four_clips(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("four")
    for name, seconds in CLIPS.items():
        wave, rate = soundfile.read(manifest.parent / f"{name}.wav")
        soundfile.write(folder / f"{name}.wav", np.resize(wave, int(seconds * rate)), rate)
    rows = pd.read_csv(manifest, dtype=str)
    return save_manifest(folder / "manifest.csv", [tuple(r) for r in rows[rows.sample_id.isin(CLIPS)].itertuples(index=False)])


@pytest.mark.parametrize(("dtype", "attention"), [("float32", None), ("float32", "eager"), ("bfloat16", None)])
@pytest.mark.parametrize("checkpoint", FAMILIES, indirect=True, scope="session")
def test_both_scripts(
    checkpoint: Path, dtype: str, attention: str | None, four_clips: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    family = request.node.callspec.params["checkpoint"]
    blocks = BLOCKS.get(family, 4)
    for name, run in SCRIPTS.items():
        out = tmp_path / name
        more = ["--attention", attention] if attention else []
        run(
            ["--model", str(checkpoint), "--data", str(four_clips), "--dtype", dtype, "--device", "cpu", "--out", str(out), *more]
        )
        record = json.loads((out / "run.json").read_text())
        check = record["self_check"]
        ways = {"logit_lens": None, "activation_patching": "staircase" if family == "gemma3n" else "splice"}
        assert record["engine"] == ways[name]
        assert record["blocks"] == blocks and record["adapters"] == ADAPTERS.get(family, [])
        if dtype == "float32":
            assert check["A - B, for comparison"] > 10 * check["tolerance"], "the identities would hold of anything"
    rows = pd.read_csv(tmp_path / "activation_patching" / "patches.csv")
    assert rows.groupby("pair_id").size().eq(blocks + 1).all() and rows.recipient_id.nunique() == 4
    logits = rows.filter(like="logit_")
    reached = rows[(rows.kv_shared == 0) & (rows.layer < blocks)]
    assert set(rows[rows.kv_shared == 1].layer) == ({3, 4} if family == "gemma3n" else set())
    if dtype == "float32":
        base = logits.groupby(rows.pair_id).transform("last")
        moved = (logits - base).abs().max(axis=1)
        assert moved[rows.kv_shared == 1].max() < 1e-5 if (rows.kv_shared == 1).any() else True
        assert moved[reached.index].groupby(reached.layer).max().gt(1e-5).all()
