"""`--probe`: the states of the lens' own forward, kept whole through interruptions, and probe.csv made of them."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import logit_lens.run
from common.clips.manifest import Sample, read_manifest
from common.errors import InputError
from common.model.encoding import encode_clip
from common.model.lm import AudioLM
from common.model.load import load_model
from common.tracing.trace import states_at
from logit_lens.fitted import state_file
from logit_lens.fitted.probe import decode
from logit_lens.fitted.recording import draw_weights
from logit_lens.fitted.state_file import FILES, LARGEST, POSITIONS, STAGES, States, read_states
from tests.helpers import study
from tests.tiny_models.tiny import LAYERS

LIMIT = 20


def start(model: Path, data: Path, out: Path, *more: str) -> None:
    shared = ["--model", str(model), "--data", str(data), "--out", str(out), "--device", "cpu", "--limit", str(LIMIT)]
    logit_lens.run.main([*shared, "--probe", *more])


@pytest.fixture(scope="module")
def whole(tiny_folder: Path, manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("probe")
    start(tiny_folder, manifest, out)
    return out


def test_states_are_those_of_the_clips_own_run_in_the_order_of_the_rows(whole: Path, lm: AudioLM, manifest: Path) -> None:
    found, rows = read_states(whole / FILES[0]), pd.read_csv(whole / "lens.csv")
    assert found.shape == (2 * LIMIT, 2, LAYERS + 1, 32) and np.isfinite(found).all()
    audio = {s.sample_id: s.audio for s in read_manifest(manifest)}
    prompt = json.loads((whole / "run.json").read_text())["prompt_text"]
    for place in (0, 27):
        clip = encode_clip(lm, audio[rows.sample_id[place * (LAYERS + 1)]], prompt)
        states = states_at(lm, clip, slice(None))[:, 0]  # [layer, pos, d_model]
        expected = torch.stack([states[:, clip.span].mean(dim=1), states[:, -1]])
        np.testing.assert_allclose(found[place], expected.numpy(), rtol=2e-3, atol=2e-3)
    assert (found[:, 1, 0] == found[0, 1, 0]).all() and not (found[:, 0, 0] == found[0, 0, 0]).all()
    assert rows.seconds.gt(0.3).all() and rows.level.between(-30, 0).all()


def test_a_run_leaves_its_table_and_figure_and_rows_that_the_probe_has_not_changed(
    whole: Path, tiny_folder: Path, manifest: Path, tmp_path: Path
) -> None:
    table, rows = pd.read_csv(whole / "probe.csv"), pd.read_csv(whole / "lens.csv")
    assert (whole / "probe_curve.png").exists() and {*table.probe} == {
        "states", "random_weights", "permuted", "duration_and_level",
    }  # fmt: skip
    states = table[table.probe == "states"]
    assert len(states) == 2 * 2 * (LAYERS + 1) and states.n.eq(LIMIT).all() and states.held_out.eq("texts and speakers").all()
    layers = pd.read_csv(whole / "layers.csv")
    for kind, of_kind in states.groupby("label"):
        for _, at in of_kind.groupby("position"):
            np.testing.assert_allclose(at.answered, layers[f"win_{kind}"], atol=2e-6)
        mean = pd.read_csv(whole / "decoding.csv").set_index("label").loc[kind]
        inner = of_kind[(of_kind.position == "span") & of_kind.layer.between(1, LAYERS - 1)]
        np.testing.assert_allclose(mean.accuracy, inner.accuracy.mean(), atol=2e-6)
        np.testing.assert_allclose(mean.unanswered, mean.accuracy - layers[f"win_{kind}"].iloc[-1], atol=2e-6)
        start_of_end = of_kind[(of_kind.position == "last") & (of_kind.layer == 0)]  # one state for all clips
        np.testing.assert_allclose(start_of_end.accuracy, 0.2, atol=1e-6)
    logit_lens.run.main(
        ["--model", str(tiny_folder), "--data", str(manifest), "--out", str(tmp_path), "--device", "cpu", "--limit", str(LIMIT)]
    )
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "lens.csv"), rows.drop(columns=["seconds", "level"]))
    assert not list(tmp_path.glob("*.npy"))


@pytest.mark.parametrize("after", [5, 2 * LIMIT + 7])
def test_an_interrupted_run_ends_with_the_same_states_and_rows(
    after: int, whole: Path, tiny_folder: Path, manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written, real = [], States.write

    def write(self: States, clip: str, states: np.ndarray) -> None:
        written.extend([clip] if self.path.name in FILES else [])
        if len(written) == after and self.path.name in FILES:
            with open(self.path, "r+b") as file:  # as a kill in the middle of the clip leaves it
                file.seek(read_states(self.path).offset + self.clips.index(clip) * states.size * 2)
                file.write(states.astype(np.float16).tobytes()[: states.size])
            raise KeyboardInterrupt
        real(self, clip, states)

    monkeypatch.setattr(States, "write", write)
    with pytest.raises(KeyboardInterrupt):
        start(tiny_folder, manifest, tmp_path)
    if after == 5:  # a clip whose rows are there, and whose states are lost, is made again
        kept = np.load(tmp_path / FILES[0], mmap_mode="r+")
        kept[1] = 0
        kept.flush()
    start(tiny_folder, manifest, tmp_path)
    assert len(written) == 4 * LIMIT + (2 if after == 5 else 1)
    for name in (*FILES, *STAGES, "lens.csv", "probe.csv", "stages.csv"):
        assert (tmp_path / name).read_bytes() == (whole / name).read_bytes(), name


def test_without_its_states_a_run_keeps_everything_else(
    whole: Path, tiny_folder: Path, manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    for file in ("lens.csv", "run.json", "files.json", FILES[0]):
        (tmp_path / file).write_bytes((whole / file).read_bytes())
    logit_lens.run.main(["--redraw", "--out", str(tmp_path)])
    assert "no probe of random weights" in capsys.readouterr().out
    assert "beyond_random_weights" not in pd.read_csv(tmp_path / "decoding.csv")
    (tmp_path / FILES[0]).write_bytes(b"no states")
    logit_lens.run.main(["--redraw", "--out", str(tmp_path)])
    assert "no probes: " in capsys.readouterr().out and not len(pd.read_csv(tmp_path / "probe.csv"))
    assert (tmp_path / "layers.csv").read_bytes() == (whole / "layers.csv").read_bytes()
    with pytest.raises(InputError, match=r"other settings: probe \(true there, false now\)"):
        logit_lens.run.main(
            ["--model", str(tiny_folder), "--data", str(manifest), "--out", str(tmp_path), "--device", "cpu", "--limit", "20"]
        )


def test_what_float16_cannot_hold_is_cut_and_counted(tmp_path: Path) -> None:
    states = States(tmp_path / "states.npy", ("a", "b"), (2, 3, 4))
    assert states.whole({"a", "b"}) == set()
    values = np.ones((2, 3, 4), dtype=np.float32)
    values[0, 1, 2], values[1, 0, 0] = 1e6, -7e4
    states.write("b", values)
    assert states.whole({"a", "b"}) == {"b"} and states.whole({"a"}) == set()
    found = read_states(states.path)
    assert not found[0].any() and found[1, 0, 1, 2] == LARGEST and found[1, 1, 0, 0] == -LARGEST
    assert states.cut() == "states.npy: 2 values beyond 65504, the largest of float16, were kept as that"
    with pytest.raises(ValueError, match="where the file has"):
        states.write("a", values[:, :2])
    other = replace(states, shape=(2, 5, 4))
    assert other.whole({"a", "b"}) == set() and read_states(states.path).shape == (2, 2, 5, 4)


def test_random_weights_are_the_same_for_a_seed_and_none_of_the_models(tiny_folder: Path, whole: Path) -> None:
    models = [load_model(str(tiny_folder), device=torch.device("cpu"), dtype=torch.float32) for _ in range(3)]
    before = {n: w.clone() for n, w in models[0].blocks.named_parameters()}
    assert [draw_weights(lm, seed=seed) for lm, seed in zip(models, (0, 0, 1))] == ["", "", ""]
    for name, weight in models[0].blocks.named_parameters():
        again, other = (dict(lm.blocks.named_parameters())[name] for lm in models[1:])
        assert torch.equal(weight, again)
        assert weight.dim() == 1 or not (torch.equal(weight, before[name]) or torch.equal(weight, other))
    assert (read_states(whole / FILES[0])[:, 0, 0] != read_states(whole / FILES[1])[:, 0, 0]).any()
    heard = replace(models[0], adapters=("speech",))
    assert draw_weights(heard, seed=0) == "it hears through LoRA (speech)"


def save_states(out: Path, samples: list[Sample], *, voice: int) -> None:
    """Write states, of which those of the model have the voice's label in a direction from layer `voice` on."""
    rng, width = np.random.default_rng(1), 12
    known = {label: rng.normal(size=width) for label in sorted({s.prosody_label for s in samples})}
    signal = 2 * np.stack([known[s.prosody_label] for s in samples])[:, None, None]
    for file, there in zip(FILES, (np.arange(study.LAYERS) >= voice, np.zeros(study.LAYERS))):
        noise = rng.normal(size=(len(samples), len(POSITIONS), study.LAYERS, width))
        np.save(out / file, (noise + signal * there[:, None]).astype(np.float16))


def planted(folder: Path, *, texts: int = 4, speakers: tuple[str, ...] = ("a", "b"), begins: int = 3) -> pd.DataFrame:
    """Return the rows of a model that answers with the words, and whose states have the voice in a direction from `begins` on."""
    samples = study.save_samples(folder / "clips", study.LABELS, texts=texts, speakers=speakers)
    truth = study.Truth(words=4.0, voice=0.0)
    rows = study._lens_rows(samples, study._logits(samples, list(study.LABELS), truth), list(study.LABELS))
    save_states(folder, samples, voice=begins)
    return rows.assign(seconds=0.25, level=-20.0)


def test_what_the_states_know_and_the_answer_does_not_say_is_found_where_it_begins(tmp_path: Path) -> None:
    rows = planted(tmp_path)
    table, means, lacking = decode(tmp_path, rows, seed=0)
    assert not lacking
    voice = table[(table.label == "prosody") & (table.probe == "states")]
    early, late = voice[voice.layer < 3], voice[voice.layer >= 3]
    assert (early.accuracy < 0.35).all() and (late.accuracy > 0.9).all()
    others = table[(table.label == "prosody") & (table.probe != "states")]
    assert (others.accuracy < 0.35).all() and set(table.chance) == {0.2}
    mean = means.set_index("label").loc["prosody"]
    assert mean.accuracy > 0.5 and min(mean.unanswered_lo, mean.beyond_permuted_lo, mean.beyond_random_weights_lo) > 0


def test_where_labels_cannot_be_held_out_one_line_says_so(tmp_path: Path) -> None:
    rows = planted(tmp_path, texts=1)
    table, _, lacking = decode(tmp_path, rows, seed=0)
    assert lacking == [
        "no probe of the words: 'angry', 'happy', 'neutral', 'sad', 'surprised': of fewer than two texts"
    ] and {*table.label} == {"prosody"}  # fmt: skip
    one = rows[rows.text_id == rows.text_id[0]]
    assert decode(tmp_path, one, seed=0)[0].empty and len(decode(tmp_path, one, seed=0)[2]) == 2
    with_fewer = rows[rows.sample_id != rows.sample_id[0]]
    assert "holds 50 clips where lens.csv has 49" in decode(tmp_path, with_fewer, seed=0)[2][-1]
    alone = planted(tmp_path / "alone", texts=2, speakers=("a",))
    table, _, lacking = decode(tmp_path / "alone", alone, seed=0)
    assert not lacking and set(table.held_out) == {"texts"}


def test_states_know_no_torch() -> None:
    assert "torch" not in Path(state_file.__file__).read_text()
