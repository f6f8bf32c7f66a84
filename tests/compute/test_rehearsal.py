"""Both scripts with tokenizers and templates as published: `make rehearse`, which downloads them; skipped without."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

import activation_patching.run
import logit_lens.run
from common.clips.manifest import LABELS, read_clips
from common.compute.answer_form import answer_start, measured_forms, preferred, readable_forms
from common.model.encoding import encoded
from common.model.lm import AudioLM
from common.model.load import load_model
from common.model.prompts import CHINESE, FORMS, Question, ask, in_form
from tests.helpers.rehearsal import DOWNLOADS, MODELS
from tests.tiny_models.answering import plant

pytestmark = pytest.mark.skipif(DOWNLOADS is None, reason="needs what make rehearse downloads")
PROMPTS = {"en": "speaker", "zh": "speaker-zh"}
FIRST = {  # what the labels begin with, as published
    "qwen": {"en": ("neutral", "happy", "sad", "ang", "sur"), "zh": ("中", "高兴", "悲伤", "愤怒", "惊讶")},
}
FORMS_ZH = {"word", '"word', ' "word'}  # behind a space published tokenizers take Chinese letters apart
UNREADABLE = {"qwen": {'"word'}, "llama": {'"word'}}  # in English: of "sad behind a quote, the quote and s are one token


@pytest.fixture(autouse=True)
def _figures_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logit_lens.run, "draw", lambda *_: None)
    monkeypatch.setattr(activation_patching.run, "draw", lambda *_: None)


@pytest.fixture(scope="module")
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return MODELS[request.param](tmp_path_factory.mktemp("published") / "model")


def load(folder: Path) -> AudioLM:
    return load_model(str(folder), device=torch.device("cpu"), dtype=torch.float32)


def tail_of(lm: AudioLM, question: Question, clips: list[Any]) -> list[int]:
    tail = encoded(lm, question, clips[0]).tail_ids
    return [*tail, *answer_start(lm, question, tail)]


def tokens_by_hand(lm: AudioLM, tail: list[int], words: tuple[str, ...]) -> tuple[list[list[int]], list[int]]:
    """Return the tokens that lead to the labels, a step each, and the first of each label that tells them apart."""
    tokenizer = lm.processor.tokenizer
    end = tokenizer.decode(tail[-1:])
    end = "" if end.strip() else end  # a special token, behind which a text begins
    before = len(tokenizer.encode(end, add_special_tokens=False)) if end else 0
    answers = [tokenizer.encode(end + word, add_special_tokens=False)[before:] for word in words]
    at = next(i for i in range(4) if len({answer[i] for answer in answers}) == len(words))
    return [[token] for token in answers[0][:at]], [answer[at] for answer in answers]


def planted(lm: AudioLM, question: Question, clips: list[Any], form: str) -> list[int]:
    """Let the model answer in a form; return the tokens that its labels are read at."""
    tail = tail_of(lm, question, clips)
    lead, ids = tokens_by_hand(lm, tail, in_form(question.words, form))
    plant(lm, tail[-1:], *lead, ids)
    return [*(token for step in lead for token in step), *ids]


@pytest.mark.parametrize("language", PROMPTS)
@pytest.mark.parametrize("folder", MODELS, indirect=True, scope="module")
def test_the_preferred_form_is_found(folder: Path, language: str, manifest: Path, request: pytest.FixtureRequest) -> None:
    """In a model that was made to prefer it, for each form in which the labels can be told apart, `word` at least."""
    lm, clips, question = load(folder), read_clips(manifest, None)[0][:8], ask(PROMPTS[language])
    forms = readable_forms(lm.processor.tokenizer, tail_of(lm, question, clips), question)
    name = request.node.callspec.params["folder"].partition(",")[0]
    apart = {" word"} if name == "llama" else set()
    assert set(forms) == (set(FORMS) - UNREADABLE.get(name, set()) if language == "en" else FORMS_ZH | apart)
    assert forms["word"].tokens == FIRST.get(name, {}).get(language, forms["word"].tokens)
    weights = [w.weight.clone() for w in (lm.model.get_output_embeddings(), lm.model.get_input_embeddings())]
    for form in forms:
        with torch.no_grad():
            for now, before in zip((lm.model.get_output_embeddings(), lm.model.get_input_embeddings()), weights):
                now.weight.copy_(before)
        planted(lm, question, clips, form)
        found = measured_forms(lm, question, clips)
        assert preferred(found) == form and found[form] > 0.9, (form, found)


@pytest.mark.parametrize("language", PROMPTS)
@pytest.mark.parametrize("folder", MODELS, indirect=True, scope="module")
def test_tables_are_those_of_the_form_read_by_hand(folder: Path, language: str, manifest: Path, tmp_path: Path) -> None:
    lm, clips, question = load(folder), read_clips(manifest, None)[0], ask(PROMPTS[language])
    form = '"word' if language == "zh" else ' "Word'
    *lead, a, b, c, d, e = planted(lm, question, clips, form)
    lm.model.save_pretrained(tmp_path / "model")
    for file in folder.iterdir():
        if not (tmp_path / "model" / file.name).exists():
            (tmp_path / "model" / file.name).symlink_to(file)
    more = ["--model", str(tmp_path / "model"), "--data", str(manifest), "--device", "cpu", "--prompt", PROMPTS[language]]
    logit_lens.run.main([*more, "--limit", "4", "--out", str(tmp_path / "lens")])
    activation_patching.run.main([*more, "--max-pairs", "2", "--out", str(tmp_path / "patching")])
    record = json.loads((tmp_path / "lens" / "run.json").read_text())
    assert record["identity"]["answer_form"] == form and record["labels_said"] is True
    rows = {n: pd.read_csv(tmp_path / n / f) for n, f in (("lens", "lens.csv"), ("patching", "patches.csv"))}
    by_id = {s.sample_id: s for s in clips}
    last = rows["lens"].layer.max()
    for row in rows["lens"][rows["lens"].layer == last].itertuples():
        assert_read_by_hand(lm, question, by_id[row.sample_id], lead, (a, b, c, d, e), row)
    for row in rows["patching"][rows["patching"].layer == last].itertuples():
        assert_read_by_hand(lm, question, by_id[row.recipient_id], lead, (a, b, c, d, e), row)
    for row in rows["patching"][rows["patching"].layer == 0].itertuples():
        assert_read_by_hand(lm, question, by_id[row.donor_id], lead, (a, b, c, d, e), row)


def assert_read_by_hand(lm: AudioLM, question: Question, sample: Any, lead: list[int], ids: tuple[int, ...], row: Any) -> None:
    """The row holds the model's own logits at the labels' tokens behind what leads to them."""
    inputs = encoded(lm, question, sample).inputs
    longer = torch.cat([inputs["input_ids"], torch.tensor([lead], dtype=torch.long)], dim=1)
    inputs = inputs | {"input_ids": longer, "attention_mask": torch.ones_like(longer)}
    with torch.inference_mode():
        logits = lm.model(**inputs).logits[0, -1]
    assert [getattr(row, f"logit_{label}") for label in LABELS] == pytest.approx(logits[list(ids)].tolist(), abs=1e-3)


@pytest.mark.parametrize("folder", ["qwen, thinking"], indirect=True, scope="module")
def test_thinking_as_published(folder: Path, manifest: Path, tmp_path: Path) -> None:
    lm, clips, question = load(folder), read_clips(manifest, None)[0], ask("speaker")
    think = lm.processor.tokenizer.convert_tokens_to_ids("<think>")
    plant(lm, tail_of(lm, question, clips)[-1:], [think])
    lm.model.save_pretrained(folder)
    more = ["--model", str(folder), "--data", str(manifest), "--device", "cpu", "--limit", "4"]
    for name, thinking in (("thinks", []), ("not", ["--no-thinking"])):
        logit_lens.run.main([*more, *thinking, "--out", str(tmp_path / name)])
        warnings = json.loads((tmp_path / name / "run.json").read_text())["warnings"]
        assert any("would think first" in w for w in warnings) is (name == "thinks")


def test_words_of_both_languages() -> None:
    assert ask("speaker-zh").words == tuple(CHINESE.values()) and ask("speaker").words == LABELS
