import json
import re
from pathlib import Path

import pandas as pd
import pytest

import activation_patching.run
import logit_lens.run
import report.build


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path, manifest: Path) -> Path:
    folder = tmp_path_factory.mktemp("outputs")
    shared = ["--model", str(tiny_folder), "--data", str(manifest), "--device", "cpu"]
    logit_lens.run.main([*shared, "--limit", "12", "--out", str(folder / "lens")])
    activation_patching.run.main([*shared, "--max-pairs", "20", "--out", str(folder / "patching")])
    return folder


def build(outputs: Path, out: Path) -> str:
    report.build.main(
        [
            "--lens",
            str(outputs / "lens"),
            "--patching",
            str(outputs / "patching"),
            "--out",
            str(out),
            "--note",
            "Whatever it was trained on.",
        ]
    )
    return (out / "report.md").read_text(encoding="utf-8")


def test_the_report_shows_all_figures_and_the_tables_numbers(outputs: Path, tmp_path: Path) -> None:
    text = build(outputs, tmp_path)
    shown = re.findall(r"\]\((figures/[^)]+)\)", text)
    assert len(shown) == 13 and all((tmp_path / name).stat().st_size > 10_000 for name in shown)
    last = pd.read_csv(outputs / "lens" / "layers.csv").iloc[-1]
    assert f"| {last.layer:.0f} | {last.margin:+.2f} [{last.margin_lo:+.2f}, {last.margin_hi:+.2f}] |" in text
    lead = f"{last.voice_lead:+.2f} [{last.voice_lead_lo:+.2f}, {last.voice_lead_hi:+.2f}]"
    assert f"at l = {last.layer:.0f}): {lead} of 12 conflict clips" in text
    carried = pd.read_csv(outputs / "patching" / "transfer.csv")
    for _, row in carried[carried.primary].iterrows():
        assert f"difference {row.difference:+.2f} [{row.difference_lo:+.2f}, {row.difference_hi:+.2f}], p " in text
    kinds = pd.read_csv(outputs / "patching" / "layers.csv")
    for _, row in kinds[(kinds.layer == 2) & (kinds.control == "none")].iterrows():
        assert f"{row.delta_logit:+.2f} [{row.delta_logit_lo:+.2f}, {row.delta_logit_hi:+.2f}] |" in text
    assert text.count("primary outcome") >= 3 and "**Warning**" in text and "by construction" in text
    assert "Whatever it was trained on." in text and text.count("The main results without") == 3
    assert "same labels donor" in text and "| **sad** |" in text and "Does the alignment" not in text
    assert "How does the speaker feel?" in text and "12 conflict clips" in text and "20 semantic pairs" in text
    assert "| logit lens | lens row L - model |" in text and "68 over --limit, 8 congruent over the number kept" in text
    assert str(Path.home()) not in text or str(Path.home()) == "/"


def test_the_three_alignments_are_shown_on_the_same_pairs(
    outputs: Path, tmp_path: Path, tiny_folder: Path, manifest: Path
) -> None:
    shared = ["--model", str(tiny_folder), "--data", str(manifest), "--device", "cpu", "--kinds", "prosody", "--max-pairs", "12"]
    for align in ("splice", "crop", "stretch"):
        out = outputs / "patching" / "align" / align
        activation_patching.run.main([*shared, "--controls", "0", "--align", align, "--out", str(out)])
    report.build.main(["--lens", str(outputs / "lens"), "--patching", str(outputs / "patching"), "--out", str(tmp_path)])
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "curves of flips differ by 0.00 at most" in text and (tmp_path / "figures" / "align_curve.png").stat().st_size > 10_000


def test_a_run_that_has_not_finished_is_refused(outputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit, match="2"):
        build(tmp_path / "gone", tmp_path)
    assert "run the experiment first" in capsys.readouterr().err
    record = outputs / "lens" / "run.json"
    before = record.read_text()
    record.write_text(json.dumps(json.loads(before) | {"finished": False}))
    with pytest.raises(SystemExit, match="2"):
        build(outputs, tmp_path)
    record.write_text(before)
    assert "has not finished" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        report.build.main(["--lens", str(outputs / "patching"), "--patching", str(outputs / "lens"), "--out", str(tmp_path)])
    assert "no column win_prosody" in capsys.readouterr().err
