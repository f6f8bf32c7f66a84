"""Runs with 2, 4 and 7 labels, whatever they are called: both scripts and the report, and a table by hand."""

import csv
import json
from pathlib import Path

import pandas as pd
import pytest

import activation_patching.run
import logit_lens.run
from common.clips.csvfile import read_table
from common.errors import InputError
from common.stats.units import labels_of
from logit_lens.tables import lens_layers
from report.markdown import plain
from tests.helpers.study import build_report

NAMES = {  # which a reader of CSV takes for something else, or a figure, a page or a pattern for signs of theirs
    2: ("1", "2"),
    4: ("01", "1", "True", "none"),
    7: ("NA", "nan", "inf", "1e3", "2026-11-27", "$a_1$", "<b>|*"),
}
WORDS = "ABCDEFG"  # of one token each to the tiny model


def relabelled(manifest: Path, labels: tuple[str, ...], out: Path) -> Path:
    """Write the manifest with other labels: the i-th of its five becomes the i-th, or one over the end, of `labels`."""
    rows = list(csv.DictReader(manifest.open(encoding="utf-8")))
    own = list(dict.fromkeys(r["semantic_label"] for r in rows))
    speakers = {s: i for i, s in enumerate(dict.fromkeys(r["speaker"] for r in rows))}
    for row in rows:
        shift = speakers[row["speaker"]] * 3  # so that all of seven occur
        for column in ("semantic_label", "prosody_label"):
            row[column] = labels[(own.index(row[column]) + shift) % len(labels)]
        row["audio"] = str(manifest.parent / row["audio"])
    with out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return out


@pytest.mark.parametrize("count", [2, pytest.param(4, marks=pytest.mark.slow), 7])
def test_any_labels_from_the_command_line_to_the_report(count: int, tiny_folder: Path, manifest: Path, tmp_path: Path) -> None:
    labels = NAMES[count]
    data = relabelled(manifest, labels, tmp_path / "m.csv")
    shared = ["--model", str(tiny_folder), "--data", str(data), "--labels", *labels, "--words", *WORDS[:count], "--limit", "24"]
    logit_lens.run.main([*shared, "--out", str(tmp_path / "lens")])
    pool = ["--pool", "all"] if count == 2 else []  # two labels: conflict clips that share one label share both
    activation_patching.run.main([*shared, *pool, "--max-pairs", "12", "--out", str(tmp_path / "patching")])
    text, _ = build_report(tmp_path, tmp_path / "r")
    rows = {name: read_table(tmp_path / name / file) for name, file in (("lens", "lens.csv"), ("patching", "patches.csv"))}
    for table in rows.values():
        assert labels_of(table) == list(labels)
    lens = rows["lens"]
    assert set(lens.winner) <= set(labels) and set(lens.semantic_label) <= set(labels)
    largest = lens[[f"logit_{label}" for label in labels]].to_numpy().argmax(axis=1)
    assert [labels[i] for i in largest] == lens.winner.tolist()
    assert set(rows["patching"].target) <= set(labels) and set(rows["patching"].pred_patch) <= set(labels)
    record = json.loads((tmp_path / "lens" / "run.json").read_text())
    assert record["identity"]["labels"] == list(labels) and list(record["label_tokens"]) == list(labels)
    assert all(plain(label) in text for label in labels) and ("surprised" not in text)


def test_with_two_labels_one_or_the_other_wins_by_hand() -> None:
    """Four conflict clips of two labels: the answer is the words' or the voice's label, never neither."""
    answers = ["x", "y", "y", "y"]
    rows = pd.DataFrame(
        {
            "sample_id": list("abcd"),
            "semantic_label": ["x", "x", "y", "x"],
            "prosody_label": ["y", "y", "x", "y"],
            "layer": 1,
            "logit_x": [2.0, 0.0, 0.0, 1.0],
            "logit_y": [1.0, 3.0, 1.0, 1.5],
            "winner": answers,
            "outcome": ["semantic", "prosody", "semantic", "prosody"],
            "margin": [-1.0, 3.0, -1.0, 0.5],
            "mass": 0.9,
            "text_id": list("stuv"),
            "speaker": "one",
        }
    )
    table = lens_layers(rows).iloc[0]
    assert (table.win_semantic, table.win_prosody, table.win_other) == (0.5, 0.5, 0)
    assert table.margin == pytest.approx(0.375) and table.voice_lead == pytest.approx(0)


def test_labels_that_no_clip_has_are_one_line(tiny_folder: Path, manifest: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--labels glad mad: no clip has both its labels among them"):
        logit_lens.run.main(
            ["--model", str(tiny_folder), "--data", str(manifest), "--labels", "glad", "mad", "--out", str(tmp_path)]
        )
