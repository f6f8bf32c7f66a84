"""`--prompts all`: a run for each variant of the prompt, and how far the results move."""

import json
from pathlib import Path

import pandas as pd
import pytest

import activation_patching.run
import logit_lens.run
from common.errors import InputError
from common.model.load import load_model
from common.model.prompts import ORDERS, PROMPTS, fill_prompt, variants
from common.running import session
from common.running.prompts import corrected, moved


def test_variants_are_paraphrases_and_orders_of_the_same_question() -> None:
    assert variants("voice") == ["voice", "voice-2", "voice-3", "voice-reversed", "voice-rotated"]
    assert variants("words-zh") == ["words-zh", "words-zh-2", "words-zh-3", "words-zh-reversed", "words-zh-rotated"]
    assert set(PROMPTS) == {v for p in PROMPTS if p.split("-")[-1] not in ("2", "3", *ORDERS) for v in variants(p)} | {
        f"{q}-{n}-{o}" for p in ("speaker", "voice", "words") for q in (p, f"{p}-zh") for n in "23" for o in ORDERS
    }
    with pytest.raises(InputError, match="--prompts all: .* not of mine.txt"):
        variants("mine.txt")


def test_orders_list_the_same_options_otherwise() -> None:
    assert fill_prompt(PROMPTS["voice-reversed"]).endswith(": surprised, angry, sad, happy or neutral.")
    assert fill_prompt(PROMPTS["voice-rotated"]).endswith(": sad, angry, surprised, neutral or happy.")


def test_moved_by_hand() -> None:
    table = pd.DataFrame(
        [("a", "share", 0.25, "x"), ("a", "share", 0.5, "y"), ("l", "layer l", 3, "x"), ("l", "layer l", None, "y")],
        columns=["what", "unit", "value", "prompt"],
    )
    assert moved(table).splitlines() == ["over 2 prompts (x, y):", "  a: 0.25 to 0.5", "  l: 3 to 3, none in 1"]


def test_p_is_corrected_over_kinds_and_prompts() -> None:
    unit = "flips gained over control (share)"
    rows = [("w", unit, 0.1, 0.01, "x"), ("w", unit, 0.2, 0.04, "y"), ("v", unit, 0.3, 0.02, "x"), ("d", "logits", 1.0, 0.9, "x")]
    table = corrected(pd.DataFrame(rows, columns=["what", "unit", "value", "p", "prompt"]))
    assert table.p_holm[:3].tolist() == pytest.approx([0.03, 0.04, 0.04]) and pd.isna(table.p_holm[3])
    assert "w: 0.1 to 0.2; p at most 0.04 (Holm over kinds and prompts)" in moved(table)


@pytest.mark.parametrize("run", [logit_lens.run.main, activation_patching.run.main])
def test_all_prompts(  # type: ignore[no-untyped-def]
    run, tiny_folder: Path, manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    patching = run is activation_patching.run.main
    more = ["--max-pairs", "10"] if patching else ["--limit", "12"]
    loaded: list[object] = []
    monkeypatch.setattr(session, "load_model", lambda *a, **more: loaded.append(a) or load_model(*a, **more))  # type: ignore[func-returns-value]
    run(["--model", str(tiny_folder), "--data", str(manifest), "--out", str(tmp_path), "--prompts", "all", *more])
    names = variants("speaker")
    assert len(loaded) == 1
    records = [json.loads((tmp_path / "prompts" / name / "run.json").read_text()) for name in names]
    assert len({record["identity"]["answer_form"] for record in records}) == 1
    assert {f.name for f in (tmp_path / "prompts").iterdir()} == set(names)
    table = pd.read_csv(tmp_path / "prompts.csv")
    assert set(table.prompt) == set(names) and {"layer l", "logits"} < set(table.unit)
    one = pd.read_csv(tmp_path / "prompts" / "speaker-2" / ("transfer.csv" if patching else "layers.csv"))
    if patching:
        one = one[(one.outcome == "delta") & (one.control_donor == "same_labels_donor")]
    expected = one.difference.iloc[0] if patching else one.margin.iloc[-1]
    assert table[(table.prompt == "speaker-2") & (table.unit == "logits")].value.iloc[0] == pytest.approx(expected, abs=1e-5)
    assert (tmp_path / "prompts.png").stat().st_size > 10_000 and "over 5 prompts" in capsys.readouterr().out
