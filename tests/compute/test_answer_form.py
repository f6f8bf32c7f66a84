"""The form of the answer: found in models that were made to answer in each, the same whatever the prompt and the limit."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import activation_patching.run
import logit_lens.run
from common.clips.manifest import read_clips
from common.compute import session
from common.compute.answer_form import AnswerForm, _of_labels, measured_forms, preferred
from common.errors import InputError
from common.model.encoding import encoded
from common.model.lm import AudioLM
from common.model.load import load_model
from common.model.prompts import FORMS, ask, in_form
from common.model.readout import Readout, resolve_readout
from tests.tiny_models.answering import plant

THREE = ("happy", "sad", "angry")  # whose first letters differ, in both cases


@pytest.fixture(autouse=True)
def _figures_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logit_lens.run, "draw", lambda *_: None)
    monkeypatch.setattr(activation_patching.run, "draw", lambda *_: None)


def load(folder: Path) -> AudioLM:
    return load_model(str(folder), device=torch.device("cpu"), dtype=torch.float32)


def ids(lm: AudioLM, text: str) -> list[int]:
    return list(lm.processor.tokenizer.encode(text, add_special_tokens=False))


def plant_form(lm: AudioLM, form: str, labels: tuple[str, ...] = THREE) -> None:
    """Let the model answer in `form`: a byte or a label's own token at a time."""
    answers = [ids(lm, word) for word in in_form(labels, form)]
    lead = next(i for i in range(9) if len({a[i] for a in answers}) > 1)
    plant(lm, ids(lm, "\n"), *([token] for token in answers[0][:lead]), [a[lead] for a in answers])


@pytest.fixture(scope="module", params=FORMS)
def answering(request: pytest.FixtureRequest, tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    lm = load(tiny_folder)
    plant_form(lm, request.param)
    folder = tmp_path_factory.mktemp("answering")
    lm.model.save_pretrained(folder)
    lm.processor.save_pretrained(folder)
    return request.param, folder


def run(script: str, out: Path, model: Path, manifest: Path, *more: str) -> dict[str, object]:
    main, few = {
        "lens": (logit_lens.run.main, ("--limit", "6")),
        "patching": (activation_patching.run.main, ("--max-pairs", "4")),
    }[script]
    main(["--model", str(model), "--data", str(manifest), "--device", "cpu", "--out", str(out), "--labels", *THREE, *few, *more])
    return json.loads((out / "run.json").read_text())


def test_the_preferred_form_is_found_and_read(answering: tuple[str, Path], manifest: Path, tmp_path: Path) -> None:
    """The tables are those of the same model read in that form by hand, with --words; the prompt lists the labels in any case."""
    form, model = answering
    (tmp_path / "asked.txt").write_text("{audio}How does the speaker feel? Answer with one word: happy, sad or angry.")
    asked = ["--prompt", str(tmp_path / "asked.txt")]
    by_hand = [*asked, "--words", *in_form(THREE, form)]
    scripts = {"lens": "lens.csv"} | ({"patching": "patches.csv"} if form in (FORMS[1], FORMS[-1]) else {})
    for script, file in scripts.items():
        record = run(script, tmp_path / script, model, manifest, *asked)
        assert record["identity"]["answer_form"] == form and record["labels_said"] is True and record["mark"] is None
        assert record["answer_form"]["probability"] > 0.9
        given = run(script, tmp_path / "given" / script, model, manifest, *by_hand)
        assert given["identity"]["answer_form"] == "as given" and given["prompt_text"] == record["prompt_text"]
        assert (tmp_path / script / file).read_bytes() == (tmp_path / "given" / script / file).read_bytes()


def test_the_form_is_the_same_whatever_the_prompt_the_limit_and_the_order_of_clips(tiny_folder: Path, manifest: Path) -> None:
    lm, clips = load(tiny_folder), read_clips(manifest, None)[0]
    found = [measured_forms(lm, ask(name), pool) for name in ("speaker", "voice", "words-2") for pool in (clips, clips[::-1])]
    assert all(other == found[0] for other in found)


def test_which_label_wins_has_no_part_in_it(tiny_folder: Path, manifest: Path) -> None:
    """A form is preferred for all labels together, where another has the single largest token."""
    lm, clips = load(tiny_folder), read_clips(manifest, THREE)[0]
    plant(lm, ids(lm, "\n"), [*(ids(lm, w)[0] for w in ("Happy", "Sad", "Angry"))])
    with torch.no_grad():
        head = lm.model.get_output_embeddings().weight
        head[ids(lm, "happy")[0], 0] = head[ids(lm, "Happy")[0], 0] + 0.1
    assert preferred(measured_forms(lm, ask("speaker", labels=THREE), clips)) == "Word"


def test_what_leads_to_the_labels_counts_and_half_is_enough() -> None:
    probs = torch.tensor([[0.3, 0.5, 0.1, 0.1], [0.6, 0.1, 0.2, 0.1]])  # at the answer's start, and behind the lead
    assert float(_of_labels(probs, Readout(("a", "b"), ("a", "b"), (2, 3), ("a", "b"), lead=(1,)))) == pytest.approx(0.5 * 0.3)
    assert [AnswerForm("word", p, 8, {}, ()).said for p in (0.49, 0.5)] == [False, True]


def test_probabilities_by_hand(tiny_folder: Path, manifest: Path) -> None:
    """A space of its own counts with its probability, and the labels behind it with theirs."""
    lm, clips = load(tiny_folder), read_clips(manifest, THREE)[0][:3]
    plant_form(lm, " word")
    question = ask("speaker", labels=THREE)
    expected = []
    for sample in clips:
        inputs = encoded(lm, question, sample).inputs
        longer = torch.cat([inputs["input_ids"], torch.tensor([ids(lm, " ")])], dim=1)
        mask = torch.ones_like(longer)
        with torch.inference_mode():
            probs = lm.model(**inputs | {"input_ids": longer, "attention_mask": mask}).logits[0].softmax(-1)
        expected.append(float(probs[-2, ids(lm, " ")[0]] * probs[-1, [ids(lm, w)[0] for w in THREE]].sum()))
    found = measured_forms(lm, question, clips)
    assert found[" word"] == pytest.approx(sum(expected) / 3, rel=1e-5) and found[" word"] > 0.9


def test_labels_that_the_model_does_not_say_are_marked(tiny_folder: Path, manifest: Path, tmp_path: Path) -> None:
    record = run("lens", tmp_path, tiny_folder, manifest)
    assert record["labels_said"] is False and record["mark"] == "labels are not what this model says"
    assert any("would rather say" in w and "--words" in w and "--prompt" in w for w in record["warnings"])


def test_a_run_that_goes_on_keeps_the_form_of_its_start(
    tiny_folder: Path, manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("lens", tmp_path, tiny_folder, manifest)
    whole = (tmp_path / "lens.csv").read_bytes()
    record = json.loads((tmp_path / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps(record | {"finished": False}))
    (tmp_path / "lens.csv").unlink()
    monkeypatch.setattr(session, "measured_forms", lambda *_: {" word": 1.0})  # as another machine might find
    again = run("lens", tmp_path, tiny_folder, manifest)
    assert again["identity"]["answer_form"] == record["identity"]["answer_form"] != " word"
    assert (tmp_path / "lens.csv").read_bytes() == whole
    assert run("lens", tmp_path, tiny_folder, manifest, "--overwrite")["identity"]["answer_form"] == " word"


def test_words_may_begin_with_a_space_or_a_quote(lm: AudioLM) -> None:
    words = [" happy", '"sad', "angry"]
    question = ask("speaker", labels=THREE, words=words)
    assert question.words == tuple(words) and "happy, sad or angry" in question.prompt
    with pytest.raises(InputError, match="some begin with a space or a quote that is a token of its own"):
        resolve_readout(lm.processor.tokenizer, [], question)
    spaced = resolve_readout(lm.processor.tokenizer, [], ask("speaker", labels=THREE, words=[" happy", " sad", " angry"]))
    assert spaced.tokens == THREE and lm.processor.tokenizer.decode(list(spaced.lead)) == " "
    with pytest.raises(InputError, match="must be 3 different words"):
        ask("speaker", labels=THREE, words=["happy", " happy", "sad"])


def test_what_stands_before_the_answer_is_in_the_tail(tiny_folder: Path, manifest: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    lm = load(tiny_folder)
    plant(lm, ids(lm, "s"), ids(lm, " "), [ids(lm, w)[0] for w in THREE])
    lm.model.save_pretrained(model)
    lm.processor.save_pretrained(model)
    record = run("patching", tmp_path / "out", model, manifest, "--answer-prefix", "The speaker sounds ")
    assert record["before_the_answer"] == "The speaker sounds " and record["identity"]["answer_form"] == " word"
    assert record["identity"]["answer_prefix"] == "The speaker sounds" and record["labels_said"] is True
    clip = encoded(lm, ask("speaker"), read_clips(manifest, None)[0][0])
    assert clip.continued(ids(lm, "so")).tail_ids == [*clip.tail_ids, *ids(lm, "so")]


THINKING = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% for c in m['content'] %}{% if c['type'] == 'audio' %}"
    "<|audio_bos|><|AUDIO|><|audio_eos|>{% else %}{{ c['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
KNOWS = THINKING + "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}"


OPENS = THINKING + "{{ '<think>\\n' }}"


@pytest.mark.parametrize("template", [KNOWS, THINKING, OPENS], ids=["knows", "does not", "opens a thought"])
def test_a_model_that_would_think_is_told_not_to(template: str, tiny_folder: Path, manifest: Path, tmp_path: Path) -> None:
    lm = load(tiny_folder)
    lm.processor.tokenizer.add_tokens(["<think>", "</think>"])
    think = ids(lm, "<think>")[0]
    lm.model.resize_token_embeddings(len(lm.processor.tokenizer), mean_resizing=False)
    plant(lm, ids(lm, "\n"), [think])
    lm.processor.chat_template = template
    lm.model.save_pretrained(tmp_path / "model")
    lm.processor.save_pretrained(tmp_path / "model")
    record = run("lens", tmp_path / "thinks", tmp_path / "model", manifest)
    assert any("would think first (<think>)" in w for w in record["warnings"])
    record = run("lens", tmp_path / "not", tmp_path / "model", manifest, "--no-thinking")
    first = encoded(replace(lm, thinking=False), ask("speaker"), read_clips(manifest, None)[0][0])
    text = lm.processor.tokenizer.decode(first.tail_ids) + str(record["before_the_answer"])
    closed = "<think>\n</think>\n\n" if template == OPENS else "<think>\n\n</think>\n\n"
    assert text.endswith(f"assistant\n{closed}")


def test_no_thinking_is_refused_where_nothing_knows_of_it(tiny_folder: Path, manifest: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--no-thinking: neither the chat template nor the tokenizer"):
        run("lens", tmp_path, tiny_folder, manifest, "--no-thinking")
