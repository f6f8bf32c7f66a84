"""A Chinese manifest, prompt, labels and words through both experiments and the report."""

import csv
import logging
from pathlib import Path

import pandas as pd
import pytest

import activation_patching.run
import logit_lens.run
from common import plotting
from common.clips.manifest import LABELS
from common.model.prompts import CHINESE as WORDS
from common.run.run_folder import read_record
from tests.helpers.study import build_report
from tests.tiny_models import tiny

CHINESE = tuple(WORDS.values())
TEXTS = dict(
    zip(CHINESE, ("他把书放在桌上。", "我们赢了，“太好了”！", "奶奶走了，\n再也不会回来。", "你为什么撒谎？", "什么？他来了？"))
)


def chinese_clips(folder: Path, labels: tuple[str, ...]) -> Path:
    manifest = tiny.save_clips(folder / "片段", texts=1, speakers=("张三", "李四"))
    with open(manifest, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    texts = dict(zip(labels, TEXTS))
    return tiny.save_manifest(
        manifest.with_name("清单.csv"),
        [tuple((row | {"text": texts[row["semantic_label"]], "language": "zh"}).values()) for row in rows],
    )


@pytest.mark.parametrize("labels", [LABELS, CHINESE])
def test_chinese_throughout(
    labels: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tiny, "LABELS", CHINESE)
    model = tiny.save_tiny_model(tmp_path / "模型")  # whose tokens for the labels are Chinese
    monkeypatch.setattr(tiny, "LABELS", labels)
    clips = chinese_clips(tmp_path, labels)
    plotting.families.cache_clear()
    plotting._say_missing.cache_clear()
    shared = ["--model", str(model), "--data", str(clips), "--device", "cpu", "--prompt", "speaker-zh"]
    shared += ["--labels", *labels] if labels != LABELS else []
    with caplog.at_level(logging.WARNING, logger="common.plotting"):
        logit_lens.run.main([*shared, "--limit", "20", "--out", str(tmp_path / "lens")])
        activation_patching.run.main([*shared, "--max-pairs", "20", "--out", str(tmp_path / "patching")])
        text, _ = build_report(tmp_path, tmp_path / "report", audio=True)
    rows = pd.read_csv(tmp_path / "lens" / "lens.csv")
    assert set(rows.semantic_label) == set(labels) and {f"logit_{word}" for word in labels} <= set(rows.columns)
    record = read_record(tmp_path / "lens")
    assert record["label_tokens"] == dict(zip(labels, CHINESE))
    assert "请用一个词回答：中性、高兴、悲伤、愤怒或惊讶。" in record["prompt_text"]
    assert (
        f"| **{labels[3]}** |" in (tmp_path / "report" / "tables.md").read_text(encoding="utf-8") and "说话人的心情如何" in text
    )
    assert not caplog.records  # without a font that has Chinese, figures stay English
