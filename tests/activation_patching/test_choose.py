"""Which clips and pairs a run takes: one kind alone, lists of pairs, clips that are left out."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

import activation_patching.run
import logit_lens.run
from activation_patching.choose import choose_pairs
from common.clips.manifest import LABELS
from common.clips.pairs import PairRules
from common.errors import InputError
from report.runs import Outputs
from report.sections.published import published_beside
from tests.clips.test_pairs import sample
from tests.tiny_models.tiny import save_clips, save_manifest

PLAIN = {"pool": "conflict", "controls": False, "labels": LABELS, "limit": None, "seed": 0}


def neutral_words() -> list:
    return [sample("neutral", p, text=t, speaker="a") for p in ("happy", "sad", "angry") for t in ("1", "2")]


def test_a_kind_without_pairs_leaves_the_other() -> None:
    pairs, counts = choose_pairs(neutral_words(), kinds=["semantic", "prosody"], rules=PairRules(), **PLAIN)
    assert {p.kind for p in pairs} == {"prosody"} and len(pairs) == 12 and set(counts["pairs"]) == {"prosody"}
    assert counts["warnings"] == ["no semantic pairs among 6 clips: no two have the same prosody_label, differ in semantic_label"]
    with pytest.raises(InputError, match="no semantic pairs among 6 clips"):
        choose_pairs(neutral_words(), kinds=["semantic"], rules=PairRules(), **PLAIN)
    with pytest.raises(InputError, match="no semantic pairs .*; no prosody pairs among 2 clips: .* and share the text"):
        two = [sample("neutral", "sad", text="1"), sample("neutral", "happy", text="2")]
        choose_pairs(two, kinds=["semantic", "prosody"], rules=PairRules(same_text=True), **PLAIN)


def test_a_list_of_pairs_is_taken_as_it_is(tmp_path: Path) -> None:
    clips = neutral_words()
    listed = tmp_path / "pairs.csv"
    rows = [f"prosody,{clips[i].sample_id},{clips[j].sample_id}" for i, j in ((0, 3), (5, 1), (0, 3))]
    listed.write_text("\n".join(["kind,recipient_id,donor_id", *rows]) + "\n")
    rules, limited = PairRules(max_pairs=1), PLAIN | {"limit": 2}
    pairs, counts = choose_pairs(clips, kinds=["semantic", "prosody"], rules=rules, pairs_file=listed, **limited)
    assert [(p.recipient, p.donor) for p in pairs] == [(clips[5], clips[1]), (clips[0], clips[3])]
    assert counts["warnings"] == [f"{listed}: lists no semantic pairs"] and counts["pairs"]["prosody"]["kept"] == 2


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest with neutral words, one clip of each fault, and one with a second of silence around it."""
    folder = tmp_path_factory.mktemp("mixed")
    rows = [tuple(r) for r in pd.read_csv(save_clips(folder, texts=2), dtype=str).itertuples(index=False)]
    rows = [r for r in rows if r[4] == "neutral"]  # 2 texts x 5 prosodies x 2 speakers
    rng = np.random.default_rng(0)
    noise = rng.uniform(-0.5, 0.5, 32_000)
    soundfile.write(folder / rows[1][1], noise, 16_000)  # 2 s; the model hears 1
    soundfile.write(folder / rows[2][1], 0 * noise, 16_000)
    (folder / rows[3][1]).write_text("no audio")
    framed = np.concatenate([np.zeros(8_000), noise[:8_000], np.zeros(8_000)])
    soundfile.write(folder / rows[4][1], framed, 16_000)  # 1.5 s, of which half a second is sound
    return save_manifest(folder / "mixed.csv", rows)


def test_bad_clips_are_left_out_and_counted(
    mixed: Path, tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    shared = ["--model", str(tiny_folder), "--data", str(mixed), "--device", "cpu"]
    with pytest.raises(InputError, match="silent|not readable|longer than the model hears"):
        logit_lens.run.main([*shared, "--out", str(tmp_path / "none")])
    assert not (tmp_path / "none").exists()
    logit_lens.run.main([*shared, "--skip-bad", "--out", str(tmp_path / "lens")])
    record = json.loads((tmp_path / "lens" / "run.json").read_text())
    dropped = {k: n for k, n in record["counts"]["dropped"].items() if n}
    assert dropped == {"longer than the model hears": 2, "silent": 1, "not readable as audio": 1}
    assert (
        record["counts"]["clips"] == 12 and record["counts"]["congruent clips"] == 4 and record["counts"]["sources"] == ["tone"]
    )
    logit_lens.run.main([*shared, "--skip-bad", "--trim", "--out", str(tmp_path / "trimmed")])
    record = json.loads((tmp_path / "trimmed" / "run.json").read_text())
    assert record["counts"]["dropped"]["longer than the model hears"] == 1 and record["counts"]["clips"] == 13
    with pytest.raises(InputError, match=r"other settings: .*trim \(true there, false now\)"):
        logit_lens.run.main([*shared, "--skip-bad", "--out", str(tmp_path / "trimmed")])
    activation_patching.run.main([*shared, "--skip-bad", "--max-pairs", "8", "--out", str(tmp_path / "patching")])
    record = json.loads((tmp_path / "patching" / "run.json").read_text())
    assert record["counts"]["dropped"]["silent"] == 1 and set(record["counts"]["pairs"]) == {"prosody"}
    assert any(w.startswith("no semantic pairs among 12 clips") for w in record["warnings"])
    assert "warning: no semantic pairs among 12 clips" in capsys.readouterr().out
    rows = pd.read_csv(tmp_path / "patching" / "patches.csv")
    again = ["--pairs-file", str(tmp_path / "patching" / "patches.csv"), "--out", str(tmp_path / "again")]
    activation_patching.run.main([*shared, "--skip-bad", *again])
    listed = pd.read_csv(tmp_path / "again" / "patches.csv")
    for wrong in ("gone.csv", "patching"):
        with pytest.raises(InputError, match="--pairs-file .*: cannot be read"):
            activation_patching.run.main([*shared, "--pairs-file", str(tmp_path / wrong), "--out", str(tmp_path / "wrong")])
    pd.testing.assert_frame_equal(*(t[t.control == "none"].reset_index(drop=True) for t in (rows, listed)), atol=2e-6)


def test_no_clip_left_is_one_line(mixed: Path, tiny_folder: Path, tmp_path: Path) -> None:
    lines = mixed.read_text(encoding="utf-8").splitlines(keepends=True)
    bad = mixed.with_name("bad.csv")
    bad.write_text("".join([lines[0], *lines[2:5]]), encoding="utf-8")
    with pytest.raises(InputError, match="--skip-bad leaves none of 3 clips; the first: .*: "):
        logit_lens.run.main(["--model", str(tiny_folder), "--data", str(bad), "--skip-bad", "--out", str(tmp_path / "x")])


def test_published_figures_stand_beside_ones_own() -> None:
    layers = pd.DataFrame(
        [{"n": 936, **{f"win_{c}{e}": v for c, v in (("prosody", 0.2), ("semantic", 0.6)) for e in ("", "_lo", "_hi")}}]
    )

    def section(model: str, *sources: str) -> str:
        record = {"counts": {"sources": list(sources)}, "identity": {"model": model}}
        return published_beside(Outputs("lens", Path(), record, layers[:0], {"layers": layers}), str)

    text = section("Qwen/Qwen2-Audio-7B-Instruct", "EMIS COSY", "EMIS STYLE")
    assert "| Qwen2-Audio | 936 | 0.135 | 0.658 |" in text and "SALMONN" not in text and "| this run | 936 | 0.20" in text
    assert "| Audio Flamingo 3 | 936 | 0.113 | 0.826 |" in section("nvidia/audio-flamingo-3-hf", "EMIS COSY")
    others = section("/models/mine", "EMIS COSY")
    assert others.count("\n| ") == 1 + 1 + 6 and "| Kimi-Audio | 936 | 0.436 | 0.372 |" in others
    assert section("Qwen/Qwen2-Audio-7B-Instruct", "RAVDESS") == ""
