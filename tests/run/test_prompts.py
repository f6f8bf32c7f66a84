"""`--prompts all`: a run for each variant of the prompt, and how far the results move."""

import json
from pathlib import Path

import pandas as pd
import pytest

import activation_patching.run
import logit_lens.run
from common.compute import session
from common.errors import InputError
from common.model.load import load_model
from common.model.prompts import ORDERS, PROMPTS, fill_prompt, variants
from common.run.over_prompts import moved


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
    rows = [("a", 0.25, 0.1, 0.4, "x"), ("a", 0.5, -0.1, 0.9, "y"), ("b layer", 3, 2, 4, "x"), ("b layer", None, None, None, "y")]
    table = pd.DataFrame(rows, columns=["what", "value", "lo", "hi", "prompt"]).assign(n=7)
    expected = ["over 2 prompts (x, y):", "  a: 0.25 to 0.50, not 0 in 1 of 2", "  b layer: 3.00 to 3.00"]
    assert moved(table).splitlines() == expected


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
    one = pd.read_csv(tmp_path / "prompts" / "speaker-2" / ("summary.csv" if patching else "layers.csv"))
    expected = one[one.kind == "semantic"].effect.iloc[0] if patching else one.voice_lead.iloc[-1]
    what = "effect of the words" if patching else "voice minus words"
    assert set(table.prompt) == set(names)
    assert table[(table.prompt == "speaker-2") & (table.what == what)].value.iloc[0] == pytest.approx(expected, abs=1e-5)
    assert (tmp_path / "prompts.png").exists() and "over 5 prompts" in capsys.readouterr().out
