"""From the encoder to the answer: stages are the clip's own, and an encoder whose block drops the voice shows it there."""

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from sklearn.decomposition import PCA
from transformers.models.qwen2_audio.modeling_qwen2_audio import Qwen2AudioEncoderLayer

import logit_lens.run
import report.build
from common.clips.audio import load_audio
from common.clips.manifest import read_manifest
from common.model.encoding import encode_clip
from common.model.load import load_model
from common.stats.findings import Estimate
from common.stats.probes import products, reduced
from common.tracing.encoder import encoder_blocks, share_heard
from common.tracing.hooks import hooks
from common.tracing.trace import own_logits
from logit_lens.encoder.findings import StageDecoding, stage_decodings
from logit_lens.encoder.states import log_mel
from logit_lens.fitted.state_file import STAGES, read_states
from report.render import environment
from tests.helpers.study import nothing_drawn
from tests.tiny_models.tiny import LAYERS, RATE, save_tiny_model

BLOCKS, DROPS, MARK = 4, 2, 123.0  # the encoder's block 2 forgets; its first bias says so


def forgetful(original: Any) -> Any:
    """Return the forward of a block that passes on noise in place of its states, where its bias has the mark."""

    def forward(self: Any, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        out = original(self, hidden_states, *args, **kwargs)
        if self.fc2.bias[0] != MARK:
            return out
        state = out[0] if isinstance(out, tuple) else out
        noise = torch.randn(state.shape, generator=torch.Generator().manual_seed(int(1e4 * hidden_states.double().sum().abs())))
        return (noise, *out[1:]) if isinstance(out, tuple) else noise

    return forward


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = save_tiny_model(tmp_path_factory.mktemp("stages") / "model", encoder_blocks=BLOCKS)
    weights = load_file(folder / "model.safetensors")
    (name,) = (n for n in weights if f"audio_tower.layers.{DROPS}.fc2.bias" in n)
    weights[name][0] = MARK
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def dropped(model: Path, manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    out = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Qwen2AudioEncoderLayer, "forward", forgetful(Qwen2AudioEncoderLayer.forward))
        shared = ["--data", str(manifest), "--device", "cpu", "--limit", "24"]
        logit_lens.run.main(["--model", str(model), "--out", str(out), "--probe", *shared])
        yield out


def test_a_block_that_drops_the_voice_shows_the_drop_there(dropped: Path) -> None:
    stages = pd.read_csv(dropped / "stages.csv")
    voice = stages[(stages.label == "prosody") & (stages.probe == "states")].set_index("stage")
    names = ["log-mel", *(f"e_{k}" for k in range(BLOCKS + 1)), *(f"h_{k}" for k in range(LAYERS + 1))]
    assert list(voice.index) == names and (dropped / "encoder_curve.png").exists()
    assert (voice.accuracy[: f"e_{DROPS}"] > 0.8).all() and (voice.accuracy[f"e_{DROPS + 1}" :] < 0.4).all()
    (found,) = (f for f in stage_decodings(stages) if f.kind == "prosody")
    assert found.until == f"e_{DROPS}" and found.between == (f"e_{DROPS}", f"e_{DROPS + 1}")
    assert found.drop is not None and found.drop.value > 0.5
    assert list(voice.index[voice.drop_lo > 0]) == [f"e_{DROPS + 1}"]


def test_the_report_names_the_drop_in_both_languages(dropped: Path, tmp_path: Path) -> None:
    with nothing_drawn():
        report.build.main(["--lens", str(dropped), "--patching", str(tmp_path / "none"), "--out", str(tmp_path), "--no-audio"])
    english, chinese = ((tmp_path / name).read_text(encoding="utf-8") for name in ("report.md", "report.zh.md"))
    (found,) = (f for f in stage_decodings(pd.read_csv(dropped / "stages.csv")) if f.kind == "prosody")
    points = math.floor(100 * found.drop.value + 0.5) if found.drop else 0
    assert "The voice's label is shown to be decodable from mel to e2." in english
    assert f"largest loss is {points} percentage points, from e2 to e3." in english
    assert f"韵律标签从 mel 到 e2 可以解码。最大的损失是 {points} 个百分点，" in chinese
    assert "(figures/encoder_curve.png)" in english and "(figures/zh/encoder_curve.png)" in chinese
    assert "| prosody | e 3 |" in (tmp_path / "tables.md").read_text(encoding="utf-8")


UP = Estimate(0.37, 0.32, 0.42, 300)


@pytest.mark.parametrize(
    "found, english, chinese, numbers",
    [
        (("prosody", None, None, None, ("h_0", "h_1")), "at any stage is not shown", "没有证据表明在任何阶段", []),
        (
            ("semantic", "e_1", "h_30", None, ("h_0", "h_1")),
            "A loss on the way is not shown",
            "没有证据表明途中有损失。",
            ["1", "30"],
        ),
        (
            ("semantic", "e_3", "e_3", UP, ("e_4", "h_0")),
            "at e3 alone",
            "只在 e3 可以",
            ["3", "37", "4", "0"],
        ),
        (
            ("prosody", "log-mel", "log-mel", UP, ("log-mel", "e_0")),
            "at mel alone. The",
            "只在 mel 可以",
            ["37", "0"],
        ),
    ],
)
def test_sentences(found: tuple[Any, ...], english: str, chinese: str, numbers: list[str]) -> None:
    parts = {"en": english, "zh": chinese}
    for language, part in parts.items():
        macros: Any = environment(language).get_template(f"sentences.{language}.jinja").module
        text = " ".join(str(macros.stage_decoding(StageDecoding(*found))).split())
        assert part in text and sorted(re.findall(r"\d+", text)) == sorted(numbers)


def test_stages_are_the_means_of_the_clips_own_frames(dropped: Path, model: Path, manifest: Path) -> None:
    lm = load_model(str(model), device=torch.device("cpu"), dtype=torch.float32)
    rows, kept = pd.read_csv(dropped / "lens.csv"), read_states(dropped / STAGES[0])
    sample = next(s for s in read_manifest(manifest) if s.sample_id == rows.sample_id[0])
    wave = load_audio(sample.audio, RATE)
    clip = encode_clip(lm, sample.audio, json.loads((dropped / "run.json").read_text())["prompt_text"])
    blocks = encoder_blocks(lm, clip)
    assert list(blocks) == list(lm.model.model.audio_tower.layers) and kept.shape[1:] == (1, BLOCKS + 2, 80)
    heard = share_heard(lm, clip, len(wave))
    assert heard == pytest.approx(len(wave) / RATE, abs=0.01)  # the tiny extractor pads to 1 s
    states = []
    with hooks(blocks[0].register_forward_pre_hook(lambda _, args: states.append(args[0]))):
        own_logits(lm, clip)
    frames = states[0][0, : math.ceil(heard * 50)]
    np.testing.assert_allclose(kept[0, 0, 1, :32], frames.mean(dim=0), rtol=2e-3, atol=2e-3)
    np.testing.assert_allclose(kept[0, 0, 0], log_mel(wave, RATE), rtol=2e-3, atol=2e-3)
    assert not kept[:, 0, 1:, 32:].any()  # as wide as the widest
    louder = log_mel(10 * wave, RATE)
    np.testing.assert_allclose(louder - log_mel(wave, RATE), 2.0, atol=0.05)  # log10 of the power


def test_one_rank_for_wide_and_narrow_vectors() -> None:
    rng = np.random.default_rng(0)
    vectors, learn = rng.normal(size=(30, 50)), np.arange(20)
    kernel = products(vectors)
    cut = reduced(kernel, learn, 3)
    fitted = PCA(3).fit((z := (vectors - vectors.mean(axis=0)) / vectors.std(axis=0))[learn])
    expected = fitted.transform(z)
    np.testing.assert_allclose(cut, expected @ expected.T / 50, atol=1e-5)
    whole = reduced(kernel, learn, 64)  # no more than there are
    assert np.linalg.matrix_rank(whole, tol=1e-8) == 19 and np.isfinite(whole).all()
    assert not reduced(np.zeros((30, 30)), learn, 3).any()
