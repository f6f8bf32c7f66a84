"""`--prompts all`: a run for each variant of the prompt, and how far the results move."""

import json
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

from common.compute import memory, session
from common.errors import InputError
from common.model.encoding import EncodedClip
from common.model.lm import AudioLM
from common.model.load import load_model
from common.model.prompts import ORDERS, PROMPTS, fill_prompt, variants
from common.run import command_line
from common.run.over_prompts import moved
from common.tracing.prefix_cache import PrefixCache, prefix_cache_of
from tests.helpers.runs import ROWS, rows_of, start

BEHIND = "read behind the kept audio - model"


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


@pytest.mark.parametrize("name", ["activation_patching", pytest.param("logit_lens", marks=pytest.mark.slow)])
def test_all_prompts_hear_a_clip_once_and_find_what_each_alone_finds(
    name: str,
    tiny_folder: Path,
    manifest: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loaded, made = list[object](), Counter[str]()

    def counting(lm: AudioLM, clip: EncodedClip) -> PrefixCache:
        made[str(float(clip.inputs["input_features"].sum()))] += 1
        return prefix_cache_of(lm, clip)

    monkeypatch.setattr(session, "load_model", lambda *a, **more: loaded.append(a) or load_model(*a, **more))  # type: ignore[func-returns-value]
    monkeypatch.setattr(session, "prefix_cache_of", counting)
    few = ("--limit", "8") if name == "logit_lens" else ("--max-pairs", "6", "--kinds", "semantic")
    start(name, tiny_folder, manifest, tmp_path, "--prompts", "all", *few)
    names = variants("speaker")
    assert len(loaded) == 1 and set(made.values()) == {1} and len(made) >= 8  # by five prompts
    assert "over 5 prompts" in capsys.readouterr().out and (tmp_path / "prompts.png").exists()
    assert {f.name for f in (tmp_path / "prompts").iterdir()} == set(names)
    records = [json.loads((tmp_path / "prompts" / prompt / "run.json").read_text()) for prompt in names]
    assert len({record["identity"]["answer_form"] for record in records}) == 1
    assert all(0 < record["self_check"][BEHIND] < 1e-4 for record in records)

    what, file = ("voice minus words", "layers") if name == "logit_lens" else ("effect of the words", "summary")
    table, one = pd.read_csv(tmp_path / "prompts.csv"), pd.read_csv(tmp_path / "prompts" / names[1] / f"{file}.csv")
    expected = one.voice_lead.iloc[-1] if name == "logit_lens" else one[one.kind == "semantic"].effect.iloc[0]
    assert set(table.prompt) == set(names)
    assert table[(table.prompt == names[1]) & (table.what == what)].value.iloc[0] == pytest.approx(expected, abs=1e-5)

    monkeypatch.setattr(memory, "cache_bytes", lambda _: 0)
    monkeypatch.setattr(command_line, "variants", lambda _: names[-2:])
    start(name, tiny_folder, manifest, tmp_path / "none kept", "--prompts", "all", *few)
    assert set(made.values()) == {3}
    for prompt in names[-2:]:
        kept, none_kept = (out / "prompts" / prompt / ROWS[name] for out in (tmp_path, tmp_path / "none kept"))
        assert kept.read_bytes() == none_kept.read_bytes()
    start(name, tiny_folder, manifest, tmp_path / "alone", "--prompt", prompt, *few)
    pd.testing.assert_frame_equal(rows_of(kept.parent, name), rows_of(tmp_path / "alone", name), atol=1e-4)
    assert BEHIND not in json.loads((tmp_path / "alone" / "run.json").read_text())["self_check"]
