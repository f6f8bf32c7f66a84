"""Clips given as text: what stands in the prompt, that nothing is heard, and that no voice is spoken of."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import activation_patching.run
import logit_lens.run
from common.clips.manifest import LABELS, Sample
from common.errors import InputError
from common.model import encoding
from common.model.encoding import encode_text
from common.model.lm import AudioLM
from common.model.prompts import Question, ask, written
from common.tracing.trace import lens
from logit_lens.findings import lens_findings
from logit_lens.rows import layers_of
from logit_lens.summary import summary
from logit_lens.tables import lens_layers, lens_tables
from tests.tiny_models.tiny import LAYERS, save_manifest

CLIP = Sample("c", Path("none.wav"), "I can't, he said.", "t", "sad", "angry", "s", "en", "")
OPTIONS = "Answer with one word: neutral, happy, sad, angry or surprised."


def question(prompt: str = "speaker", given: str = "transcript", **more: Any) -> Question:
    return replace(ask(prompt, **more), input=given)


def test_the_text_stands_in_quotes_where_the_clip_would_and_told_names_its_tone(tmp_path: Path) -> None:
    assert written(question(), CLIP) == f'"I can\'t, he said." How does the speaker feel? {OPTIONS}'
    told = written(question(given="described"), CLIP)
    assert told == f'"I can\'t, he said." (said in an angry tone) How does the speaker feel? {OPTIONS}'
    for voice, tone in (("sad", "a sad"), ("happy", "a happy"), ("angry", "an angry")):
        assert f'" (said in {tone} tone) How' in written(question(given="described"), replace(CLIP, prosody_label=voice))
    words = ("calm", "glad", "low", "irate", "amazed")
    assert "(said in an irate tone)" in written(question(given="described", words=words), CLIP)
    file = tmp_path / "mine.txt"
    file.write_text("A clip: {audio}. Its mood, of {labels}?")
    assert written(question(str(file)), replace(CLIP, text="{labels} {audio}")).startswith(
        'A clip: "{labels} {audio}". Its mood, of '
    )


def test_a_chinese_prompt_is_filled_the_chinese_way() -> None:
    clip = replace(CLIP, text="他来了。", prosody_label="sad")
    asked = "说话人的心情如何？请用一个词回答：中性、高兴、悲伤、愤怒或惊讶。"
    assert written(question("speaker-zh"), clip) == f"“他来了。”{asked}"
    assert written(question("speaker-zh", "described"), clip) == f"“他来了。”（用悲伤的语气说）{asked}"


def test_encoding_and_answer_are_what_processor_and_model_give_by_hand(lm: AudioLM) -> None:
    clip = encode_text(lm, question(system="Be brief."), CLIP)
    by_hand = (
        '<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n"I can\'t, he said." How does the speaker feel? '
        f"{OPTIONS}<|im_end|>\n<|im_start|>assistant\n"
    )
    assert clip.ids[0].tolist() == lm.processor(text=by_hand, return_tensors="pt")["input_ids"][0].tolist()
    assert set(clip.inputs) == {"input_ids", "attention_mask"} and clip.span_length == 0
    ids = [lm.processor.tokenizer.convert_tokens_to_ids(label) for label in LABELS]
    whole, of_labels = lens(lm, clip, ids)
    with torch.inference_mode():
        own = lm.model(input_ids=clip.ids).logits[0, -1]
    assert torch.equal(whole[-1], own) and len(whole) == LAYERS + 1
    torch.testing.assert_close(of_labels[-1], own[ids], atol=1e-5, rtol=0)


def test_a_text_or_template_that_would_not_reach_the_model_whole_is_refused(lm: AudioLM, monkeypatch: pytest.MonkeyPatch) -> None:
    for token in ("<|im_end|>", "<|AUDIO|>"):
        with pytest.raises(InputError, match="c: its text holds .*, a special token of the model"):
            encode_text(lm, question(), replace(CLIP, text=f"Go{token}"))
    monkeypatch.setattr(lm.processor, "chat_template", "{% for m in messages %}User:{% endfor %}")
    with pytest.raises(InputError, match="cannot put a text into a question .its chat template leaves the text out"):
        encode_text(lm, question(), CLIP)
    monkeypatch.setattr(lm.processor, "chat_template", "{% for m in messages %}User: {{ m['content'] }}{% endfor %}")
    decoded = lm.processor.tokenizer.decode(encode_text(lm, question(), CLIP).ids[0])
    assert decoded == f"User: {written(question(), CLIP)}"  # and not the message in parts, printed


@pytest.fixture
def deaf(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("audio was read")

    monkeypatch.setattr(encoding, "load_audio", fail)


@pytest.mark.usefixtures("deaf")
@pytest.mark.parametrize("given", ["transcript", "described"])
def test_runs_of_texts(given: str, tiny_folder: Path, manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    start = ["--model", str(tiny_folder), "--data", str(manifest), "--out", str(tmp_path), "--device", "cpu"]
    logit_lens.run.main([*start, "--limit", "30", "--input", given, "--generate", "5"])
    rows, record = pd.read_csv(tmp_path / "lens.csv"), json.loads((tmp_path / "run.json").read_text())
    assert record["identity"]["input"] == given and record["finished"] and record["counts"]["clips"] == 30
    check = record["self_check"]
    assert (
        check["lens row L - model"] < 1e-4 < check["A - B, for comparison"]
        and check["audio"] == "none in the input, none checked"
    )
    assert not {"audio tokens", "positions that the audio moves"} & set(check)
    last = rows[rows.layer == LAYERS]
    same = ["text_id"] if given == "transcript" else ["text_id", "prosody_label"]
    of = last.groupby(same)[[f"logit_{label}" for label in LABELS]].nunique().max(axis=1)
    assert (of == 1).all() and last.logit_sad.nunique() == len(of) and (len(of) > 10) == (given == "described")
    printed = capsys.readouterr().out
    assert f"given as {given}" in printed and ("the voice's label" in printed) == (given != "transcript")
    with pytest.raises(InputError, match="holds a run with other settings: input"):
        logit_lens.run.main([*start, "--limit", "30"])


@pytest.mark.usefixtures("deaf")
def test_a_row_without_a_text_is_one_clear_line(tiny_folder: Path, manifest: Path, tmp_path: Path) -> None:
    with open(manifest, newline="", encoding="utf-8") as file:
        rows = [row | {"audio": str(manifest.parent / row["audio"])} for row in csv.DictReader(file)]
    rows[1]["text"] = " "
    bad = save_manifest(tmp_path / "m.csv", [tuple(row.values()) for row in rows])
    start = [
        "--model",
        str(tiny_folder),
        "--data",
        str(bad),
        "--out",
        str(tmp_path / "out"),
        "--input",
        "described",
        "--limit",
        "4",
    ]
    with pytest.raises(InputError, match=r"m.csv, row 3, column text: empty; it must be given$"):
        logit_lens.run.main(start)
    assert not (tmp_path / "out" / "lens.csv").exists()
    logit_lens.run.main([*start, "--skip-bad"])
    assert json.loads((tmp_path / "out" / "run.json").read_text())["counts"]["dropped"]["no text"] == 1


def test_patching_has_no_such_option(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit, match="2"):
        activation_patching.run.main(["--input", "transcript"])
    assert "unrecognized arguments: --input" in capsys.readouterr().err


def test_a_model_that_answers_texts_without_its_adapter_is_not_asked_to_speak() -> None:
    session: Any = SimpleNamespace(lm=SimpleNamespace(adapters=("speech",)), question=question())
    with pytest.raises(InputError, match="--generate: not with --input transcript"):
        next(layers_of(session, [[CLIP]], speaking=frozenset("c")))


def rows_of_texts(*, texts: int, speakers: int) -> pd.DataFrame:
    """Return rows of one layer in which all clips of a text have the same answer, right for seven texts in ten."""
    rng, rows = np.random.default_rng(0), []
    for words, number in np.ndindex(5, texts):
        logits = rng.normal(size=5) + (6 * np.eye(5)[words] if number % 10 < 7 else -6 * np.eye(5)[words])
        winner = LABELS[int(logits.argmax())]
        for speaker, voice in np.ndindex(speakers, 5):
            named = {"semantic_label": LABELS[words], "prosody_label": LABELS[voice], "text_id": f"{words}-{number}"}
            who = "semantic" if winner == LABELS[words] else "prosody" if winner == LABELS[voice] else "other"
            told = {
                "layer": 1,
                "winner": winner,
                "outcome": who,
                "margin": logits[voice] - logits[words],
                "mass": 1.0,
                "speaker": str(speaker),
            }
            if words != voice:
                rows.append({"sample_id": f"{words}-{number}-{speaker}-{voice}"} | named | told | dict(zip(COLUMNS, logits)))
    return pd.DataFrame(rows)


COLUMNS = [f"logit_{label}" for label in LABELS]


def test_clips_of_one_text_count_as_one() -> None:
    """Eight clips with the same answer tell no more than one: the interval is that of the texts."""
    rows = rows_of_texts(texts=10, speakers=2)
    every, one = (lens_layers(r).iloc[0] for r in (rows, rows.drop_duplicates("text_id")))
    assert (every.n, one.n, every.win_semantic) == (400, 50, pytest.approx(0.7))
    for end in ("lo", "hi"):
        assert every[f"win_semantic_{end}"] == pytest.approx(one[f"win_semantic_{end}"], abs=0.01)
    assert every.win_semantic_hi - every.win_semantic_lo > 0.2


def test_what_is_said_of_texts_alone_names_no_voice() -> None:
    """Even where the voice's label comes out oftenest, which the text alone cannot bring about."""
    rows = rows_of_texts(texts=10, speakers=2)
    other = rows.prosody_label.where(rows.outcome != "semantic", rows.winner)
    for table in (rows, rows.assign(winner=rows.prosody_label, outcome="prosody", margin=5.0), rows.assign(winner=other)):
        said = summary(lens_findings(lens_tables(table)), "transcript")
        assert "words' label" in said[1] and not any("voice" in line for line in said)
