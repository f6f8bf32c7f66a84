"""Free text under interventions is what reruns say, token for token; where it is not what the first token says, it is seen."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

import activation_patching.run
from activation_patching.components.rows import Patch, of_parts
from activation_patching.exchange.edits import of_edits
from activation_patching.exchange.fits import positions as edited_positions
from activation_patching.free_text import rows
from activation_patching.free_text.rows import spoken
from activation_patching.free_text.tables import free_text, free_text_tables
from activation_patching.knockout.rows import of_cuts, positions
from activation_patching.knockout.windows import Curve, blocks
from activation_patching.scale import transcribed_rows
from activation_patching.span.patch import of_pair
from common.clips.manifest import LABELS, Sample, read_manifest
from common.clips.pairs import Pair
from common.components.submodules import find_parts, on_mlp, on_projection
from common.components.substitution import activations
from common.model.encoding import encode_clip
from common.model.generation import answer_kind
from common.model.lm import AudioLM
from common.model.prompts import PROMPTS
from common.patching.free_text import NextToken, Tokens, end_tokens, greedy, word_scores
from common.patching.knockout import Cut, knockout_rerun
from common.patching.layer_batch import span_start
from common.patching.leace import learn, scale_of
from common.patching.rerun import put, rerun
from common.patching.tail_pass import tail_of
from common.run.run_folder import read_record, read_table
from common.tracing.hooks import hooks
from common.tracing.trace import own_logits, record, states_at
from tests.tiny_models.tiny import LAYERS

MOST = 4
AT = tuple(range(LAYERS + 1))


@pytest.fixture(scope="module")
def samples(manifest: Path) -> list[Sample]:
    """Clips of which the first two differ in length."""
    some = read_manifest(manifest)
    return [some[0], next(s for s in some if s.audio.stat().st_size != some[0].audio.stat().st_size), *some[2:40]]


def session_of(lm: AudioLM, engine: str = "splice") -> SimpleNamespace:
    def encode(sample: Sample, silent: bool = False):  # type: ignore[no-untyped-def]
        return encode_clip(lm, sample.audio, PROMPTS["speaker"], silent=silent)

    readout = SimpleNamespace(ids=(5, 6, 7))
    of_rows = {"layers": AT, "layers_of": lambda rows: [AT[row % len(AT)] for row in rows]}
    return SimpleNamespace(lm=lm, engine=engine, readout=readout, encode=encode, **of_rows)


def said_by(next_token: NextToken, rows: int) -> list[Tokens]:
    return greedy(next_token, rows, ends=(), most=MOST)


def by_hand(logits_behind: Callable[[Tokens], torch.Tensor]) -> Tokens:
    said = Tokens()
    for _ in range(MOST):
        said = (*said, int(logits_behind(said).argmax()))
    return said


@pytest.mark.parametrize("engine", ["splice", "layer_batch"])
def test_a_patched_pair_says_what_reruns_say(engine: str, lm: AudioLM, samples: list[Sample]) -> None:
    """Row 0 is the donor's own text, where its whole span is put in, and row L the recipient's; lengths differ."""
    session = session_of(lm, engine)
    recipient, donor = (session.encode(s) for s in samples[:2])
    assert recipient.span_length != donor.span_length
    align = "splice" if engine == "splice" else "crop"
    next_token = of_pair(session, Pair("semantic", samples[0], samples[1]), align)  # type: ignore[arg-type]
    found = said_by(next_token, len(AT))
    known = word_scores(next_token, len(AT), [found[0], found[-1][:1]], ends=[3])[1]  # what need not be asked for again
    assert len(known) > 2 and greedy(next_token, len(AT), ends=(), most=MOST, likeliest=known) == found
    own = [by_hand(lambda said, clip=clip: own_logits(lm, clip.continued(said))) for clip in (donor, recipient)]  # type: ignore[misc]
    assert found[-1] == own[1] and (engine != "splice" or found[0] == own[0]) and own[0] != own[1]

    def rerun_at(layer: int, said: Tokens) -> torch.Tensor:
        longer = recipient.continued(said)
        if engine == "splice":  # the donor's run with the recipient's tail in it
            of_donor = donor.continued(said)
            return rerun(lm, of_donor, layer, of_donor.tail, put(record(lm, longer)[0].tail))
        donated = states_at(lm, donor, donor.span)[..., : recipient.span_length, :]
        return rerun(lm, longer, layer, span_start(recipient, donated), put(donated))

    assert found == [by_hand(lambda said, layer=layer: rerun_at(layer, said)) for layer in AT]  # type: ignore[misc]
    assert engine != "splice" or len(set(found)) > 1


@pytest.mark.parametrize("at", ["span", "last"])
def test_an_edit_acts_on_the_prompt_alone(at: str, lm: AudioLM, samples: list[Sample]) -> None:
    session, clip = session_of(lm, "splice" if at == "last" else "layer_batch"), session_of(lm).encode(samples[0])
    where = edited_positions(clip, at)
    states = torch.stack([_state(lm, s, at) for s in samples])
    own = {i: learn(states[:, i], torch.arange(len(samples)) % 5, rank=4, seed=0)[0] for i in AT}
    edits = [scale_of(factor, own) for factor in (40.0, -30.0)]
    found = said_by(of_edits(session, clip, edits, at=at), 2 * len(AT))  # type: ignore[arg-type]
    wanted = [
        by_hand(lambda said, e=edit, i=layer: rerun(lm, clip.continued(said), i, where, e))  # type: ignore[misc]
        for edit in edits
        for layer in AT
    ]
    assert found == wanted and len(set(found)) > 1


def _state(lm: AudioLM, sample: Sample, at: str) -> torch.Tensor:
    clip = encode_clip(lm, sample.audio, PROMPTS["speaker"])
    return states_at(lm, clip, edited_positions(clip, at))[:, 0].mean(dim=1)


def test_what_is_hidden_from_the_last_token_stays_hidden_from_what_is_said(lm: AudioLM, samples: list[Sample]) -> None:
    session, sample = session_of(lm), samples[0]
    clip = session.encode(sample)
    curves = [Curve(sample, edge, "from") for edge in ("audio_to_all", "audio_to_question", "question_to_last")]
    found = said_by(of_cuts(session, clip, curves), 3 * len(AT))  # type: ignore[arg-type]
    end, wanted = clip.ids.shape[1], []
    for curve in curves:
        keys, queries = positions(clip).edge(curve.edge)
        for layer in AT:

            def cut_rerun(said: Tokens, keys: range = keys, queries: range = queries, layer: int = layer) -> torch.Tensor:
                seeing = range(queries.start, queries.stop + len(said) * (queries.stop == end))
                return knockout_rerun(lm, clip.continued(said), Cut(keys, seeing, *blocks("from", layer, LAYERS)))

            wanted.append(by_hand(cut_rerun))
    assert found == wanted and len(set(found)) > 1


def test_a_part_is_patched_in_the_prompt_alone(lm: AudioLM, samples: list[Sample]) -> None:
    """One head, attention or MLP of the donor's, at its last token or its whole tail, as in a full run without cache."""
    session, (recipient, donor) = session_of(lm), map(session_of(lm).encode, samples[:2])
    parts = find_parts(lm, recipient, tail_of(lm, recipient))
    pair, blocks_there = Pair("semantic", samples[0], samples[1]), range(LAYERS)
    patches = [Patch(pair, part, 0) for part in ("head_1", "attention", "mlp", "attention_tail", "mlp_tail")]
    found = said_by(of_parts(session, parts, patches), len(patches) * LAYERS)  # type: ignore[arg-type]
    does = activations(lm, parts, tail_of(lm, donor))[0]

    def rerun_with(patch: Patch, block: int, said: Tokens) -> torch.Tensor:
        of_mlp, end = patch.part.startswith("mlp"), recipient.ids.shape[1]
        places = slice(end - 1, end) if patch.at_last else recipient.tail
        donated = (does.mlp if of_mlp else does.heads)[block][:, -(places.stop - places.start) :]  # type: ignore[index]
        size = donated.shape[-1] // parts[block].heads
        numbers = slice(size, 2 * size) if patch.part == "head_1" else slice(None)

        def put_in(x: torch.Tensor) -> torch.Tensor:
            x = x.clone()
            x[:, places, numbers] = donated[..., numbers]
            return x

        with hooks(*(on_mlp if of_mlp else on_projection)(parts[block], put_in)):
            return own_logits(lm, recipient.continued(said))

    wanted = [by_hand(lambda said, p=p, b=b: rerun_with(p, b, said)) for p in patches for b in blocks_there]  # type: ignore[misc]
    assert found == wanted and len(set(found)) > 1


def test_words_are_scored_whole_and_with_their_end(lm: AudioLM, samples: list[Sample]) -> None:
    clip = encode_clip(lm, samples[0].audio, PROMPTS["speaker"])
    words, end = [(5,), (6, 7), (6, 8)], 3
    scores, _ = word_scores(lambda said, rows: own_logits(lm, clip.continued(said))[None], 1, words, ends=[end])
    for word, score in zip(words, scores[0]):
        with torch.inference_mode():
            whole = lm.model(**clip.continued((*word, end)).inputs, use_cache=False).logits[0].float().log_softmax(dim=-1)
        behind = range(clip.ids.shape[1] - 1, whole.shape[0] - 1)
        assert score == pytest.approx(sum(float(whole[i, t]) for i, t in zip(behind, (*word, end))), abs=1e-3)


def test_one_that_says_something_else_first_is_seen(lm: AudioLM, tmp_path: Path) -> None:
    """Its first token is read as happy; it says "Sure, sad"."""
    tokenizer = lm.processor.tokenizer
    ids = {label: tokenizer.convert_tokens_to_ids(label) for label in LABELS}
    sure, end = tokenizer.convert_tokens_to_ids("word"), min(end_tokens(lm))
    likely: dict[Tokens, dict[int, float]] = {
        (): {sure: 5, ids["happy"]: 4, ids["sad"]: 3},
        (sure,): {ids["sad"]: 5},
        (ids["sad"],): {end: 9},
    }

    def next_token(said: Tokens, rows: list[int]) -> torch.Tensor:
        logits = torch.zeros(len(rows), 4000)
        for token, logit in likely.get(said, {end: 5.0}).items():
            logits[:, token] = logit
        return logits

    first = SimpleNamespace(tail_ids=tokenizer.encode("word", add_special_tokens=False))
    readout = SimpleNamespace(labels=LABELS, words=LABELS, lead=(), answer=lambda scores: LABELS[int(scores.argmax())])
    question = SimpleNamespace(bare_words=LABELS)
    session = SimpleNamespace(lm=lm, readout=readout, question=question, first=first, layers=(0, 1))
    rows = spoken(session, "curve_id", ["a"], next_token)  # type: ignore[arg-type]
    assert [(r["said"], r["whole_word"], r["answer_kind"]) for r in rows] == [("sad", "sad", "label")] * 2
    pd.DataFrame(rows).to_csv(tmp_path / "generated.csv", index=False)
    known = {"sample_id": "a", "text_id": "t", "speaker": "s", "semantic_label": "happy", "prosody_label": "sad"}
    table = pd.DataFrame([known | {"curve_id": "a", "layer": layer, "factor": 2, "pred_scaled": "happy"} for layer in (0, 1)])
    found = free_text(free_text_tables(tmp_path, table, unit="curve_id", answer="pred_scaled", keys=("factor",)))
    assert found is not None and (found.agreement, found.word_agreement, found.no_label, found.n) == (0, 0, 0, 1)


def test_an_audio_token_and_an_end_that_the_model_does_not_know_end_nothing_else(lm: AudioLM, samples: list[Sample]) -> None:
    """The first is no text that a rerun could go on with; of the second nothing can be read."""
    config = lm.model.generation_config
    before, config.eos_token_id = config.eos_token_id, [10**6]
    try:
        known = end_tokens(lm)
    finally:
        config.eos_token_id = before
    assert 10**6 not in known and known <= end_tokens(lm)
    said = greedy(lambda so_far, rows: torch.eye(9)[[7 if so_far else 5] * len(rows)], 1, ends={7, None}, most=4)
    assert said == [(5,)]
    scores, _ = word_scores(lambda so_far, rows: torch.eye(9)[[5] * len(rows)], 1, [(5,), (6,)], ends=())
    assert scores[0, 0] > scores[0, 1]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Happy.", "label"),
        ("happy or sad", "hedge"),
        ("I cannot tell", "refusal"),
        ("blue", "none"),
        ("happy, very happy", "label"),
    ],
)
def test_kinds_of_answers(text: str, kind: str) -> None:
    assert answer_kind(text, LABELS, LABELS) == kind


RUNS = (
    ("span",),
    ("exchange", "--at", "last", "--kinds", "prosody"),
    ("scale", "--at", "last", "--factor", "4"),
    ("knockout", "--window"),
    ("components",),
)


@pytest.mark.parametrize("options", RUNS, ids=lambda options: options[0])
def test_a_run_keeps_what_is_said(
    options: tuple[str, ...],
    tiny_folder: Path,
    manifest: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in (transcribed_rows, rows):
        monkeypatch.setattr(module, "MOST_TOKENS", 3)  # a random model does not end
    out = tmp_path / "out"
    asked = ["--model", str(tiny_folder), "--data", str(manifest), "--device", "cpu", "--out", str(out), "--max-pairs", "4"]
    few = ["--limit", "4"] if options[0] in ("scale", "knockout") else []
    activation_patching.run.main([*asked, *few, "--generate", "2", "--intervention", *options])
    assert "free text names the first token's label: " in capsys.readouterr().out
    assert read_record(out)["counts"]["free_text"]["new_tokens_read"]
    said, table = read_table(out, "generated"), read_table(out, "free_text")
    unit = said.columns[0]
    assert all(tuple(layers) == (AT[:-1] if options[0] == "components" else AT) for _, layers in said.groupby(unit).layer)
    units = {"span": 2 * 2, "exchange": 2, "scale": 2 * 2, "knockout": 2 * 5 * 2, "components": 2 * 2 * (4 + 4)}[options[0]]
    assert (out / "transcribed.csv").exists() == (options[0] == "scale")
    assert said[unit].nunique() == units and table.n.eq(2).all()
