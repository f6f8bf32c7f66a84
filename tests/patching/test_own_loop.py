"""patches.csv against a loop of its own, one full forward for each layer and one hook, and windows of attention of every size."""

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

import activation_patching.run
from activation_patching.choose import choose_pairs, clips_of, groups_of
from activation_patching.span.rows import patch_pairs
from common.clips.manifest import LABELS, read_clips
from common.clips.pairs import PairRules
from common.compute.session import open_session
from common.model import ModelChoice
from common.model.encoding import EncodedClip, encode_clip
from common.model.lm import AudioLM
from common.model.load import load_model
from common.model.prompts import PROMPTS, ask, fill_prompt
from common.patching import ENGINES
from common.tracing.hooks import hooks
from tests.tiny_models.newer_families import save_gemma4, save_nemotron_h_omni
from tests.tiny_models.tiny import save_clips, save_tiny_model

LABEL_LOGITS = ["logit_neutral", "logit_happy", "logit_sad", "logit_angry", "logit_surprised"]


def patched_rows(model: Path, data: Path, out: Path, *more: str) -> tuple[pd.DataFrame, dict[str, Any]]:
    activation_patching.run.main(["--model", str(model), "--data", str(data), "--device", "cpu", "--out", str(out), *more])
    return pd.read_csv(out / "patches.csv"), json.loads((out / "run.json").read_text())


def at_block(lm: AudioLM, layer: int, change: Any) -> AbstractContextManager[None]:
    """Let `change` see, and return anew, what enters block `layer`, or what leaves the last one."""
    if layer < len(lm.blocks):
        return hooks(lm.blocks[layer].register_forward_pre_hook(lambda module, args: (change(args[0]), *args[1:])))
    return hooks(lm.blocks[-1].register_forward_hook(lambda module, args, h: change(h)))


def answer(lm: AudioLM, clip: EncodedClip, layer: int, positions: slice, states: torch.Tensor) -> torch.Tensor:
    def overwrite(h: torch.Tensor) -> torch.Tensor:
        h = h.clone()
        h[:, positions] = states
        return h

    with at_block(lm, layer, overwrite), torch.inference_mode():
        return lm.model(**clip.inputs, use_cache=False).logits[0, -1]


def states(lm: AudioLM, clip: EncodedClip, layer: int, positions: slice) -> torch.Tensor:
    caught: list[torch.Tensor] = []

    def catch(h: torch.Tensor) -> torch.Tensor:
        caught.append(h[:, positions].clone())
        return h

    with at_block(lm, layer, catch), torch.inference_mode():
        lm.model(**clip.inputs, use_cache=False)
    return caught[0]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Texts of different length; of each text three clips of equal length."""
    folder = tmp_path_factory.mktemp("clips")
    save_clips(folder, texts=1, speakers=("a",))
    rows = pd.read_csv(folder / "manifest.csv", dtype=str)
    for i, name in enumerate(rows.sample_id):  # lengths from 0.3 to 0.9 s
        wave, rate = soundfile.read(folder / f"{name}.wav")
        soundfile.write(folder / f"{name}.wav", np.resize(wave, int(rate * (0.3 + 0.15 * (i // 5)))), rate)
    return folder / "manifest.csv"


@pytest.mark.parametrize("kind", ["hybrid", "windowed", "shared keys"])
def test_patches_are_those_of_a_loop_over_layers(kind: str, clips: Path, tmp_path: Path) -> None:
    """Of equal spans the recipient's run with the donor's span in it; of unequal the donor's with the recipient's tail, or crop.

    The window of 95 positions ends within the span of the longer clips. Where a model projects inputs for every block from the
    embedded audio, those of the span at the blocks from the patched layer on are the donor's.
    """
    saved = {
        "hybrid": save_nemotron_h_omni,
        "windowed": lambda folder: save_tiny_model(folder, window=95),
        "shared keys": save_gemma4,
    }[kind](tmp_path / "model")
    crop = ["--align", "crop"] if kind == "shared keys" else []
    rows, record = patched_rows(saved, clips, tmp_path / "out", "--max-pairs", "4", *crop)
    assert record["engine"] == ("layer_batch" if crop else "splice")
    lm = load_model(str(saved), device=torch.device("cpu"), dtype=torch.float32)
    prompt, tokens = fill_prompt(PROMPTS["speaker"]), lm.processor.tokenizer
    encoded = {name: encode_clip(lm, clips.parent / f"{name}.wav", prompt) for name in {*rows.recipient_id, *rows.donor_id}}
    ids = [tokens.encode(text, add_special_tokens=False)[0] for text in record["label_tokens"].values()]
    rows = rows[rows.control == "none"]
    seen = {False: 0, True: 0}
    for _, pair in rows.groupby("pair_id"):
        a, b = encoded[pair.recipient_id.iloc[0]], encoded[pair.donor_id.iloc[0]]
        equal = a.span_length == b.span_length
        seen[equal] += 1
        for layer, expected in zip(pair.layer, pair[LABEL_LOGITS].to_numpy()):
            if equal or crop:
                shared = min(a.span_length, b.span_length)
                mine, theirs = (slice(clip.span.start, clip.span.start + shared) for clip in (a, b))
                donated = states(lm, b, layer, theirs)
                with inputs_of_blocks(lm, b, theirs, mine, layer) if crop else at_block(lm, 0, lambda h: h):
                    logits = answer(lm, a, layer, mine, donated)
            else:
                logits = answer(lm, b, layer, b.tail, states(lm, a, layer, a.tail))
            np.testing.assert_allclose(logits[ids], expected, atol=1e-5, err_msg=f"layer {layer}, equal {equal}")
    assert all(seen.values()), f"{seen}: pairs of equal and of unequal length are needed"
    assert rows.groupby("pair_id")[LABEL_LOGITS].std().max().max() > 1e-2  # the loop tells layers apart


@contextmanager
def inputs_of_blocks(lm: AudioLM, donor: EncodedClip, theirs: slice, mine: slice, layer: int) -> Iterator[None]:
    """Give blocks from `layer` on the donor's own inputs in its span, Gemma 4's per-layer inputs [1, pos, block, any]."""
    decoder = lm.model.model.language_model
    own, caught = decoder.project_per_layer_inputs, []

    def project(*given: Any) -> torch.Tensor:
        caught.append(own(*given))
        return caught[-1]

    decoder.project_per_layer_inputs = project
    with torch.inference_mode():
        lm.model(**donor.inputs, use_cache=False)

    def patched(*given: Any) -> torch.Tensor:
        inputs = own(*given).clone()
        inputs[:, mine, layer:] = caught[0][:, theirs, layer:]
        return inputs

    decoder.project_per_layer_inputs = patched
    yield
    del decoder.project_per_layer_inputs


@pytest.mark.parametrize("window", [pytest.param(20, marks=pytest.mark.slow), 70, 150, pytest.param(400, marks=pytest.mark.slow)])
def test_no_window_lets_a_run_abort_half_way(window: int, clips: Path, tmp_path: Path) -> None:
    """Whatever clip is drawn first: of the prompts 62 to 77 positions come before the tail, 142 to 157 with it."""
    model = ModelChoice(str(save_tiny_model(tmp_path, window=window)), device="cpu")
    drawn: set[int] = set()
    for seed in range(3):
        samples, _ = read_clips(clips, None)
        rules = PairRules(max_pairs=4)
        pairs, _ = choose_pairs(
            samples, limit=8, seed=seed, kinds=["semantic"], rules=rules, controls=False, labels=LABELS, pool="conflict"
        )
        session = open_session(model, ask("speaker"), clips_of(pairs), engines=ENGINES)
        made = patch_pairs(session, groups_of(pairs), of=len(pairs), earlier=tmp_path / "none", align="splice", cache_gb=None)
        rows = pd.DataFrame(chain.from_iterable(made))
        assert session.engine == "splice" and len(rows) == len(pairs) * len(session.layers) and set(rows.engine) == {"splice"}
        assert rows.own_run_difference.max() < 1e-4 and session.check.patch.from_rerun["splice"] < 1e-4
        drawn.add(session.first.span_length)
    assert len(drawn) > 1
