"""Scale: what planted models do with a voice made larger or erased, its tables and its files."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

import activation_patching.run
from activation_patching.exchange.fits import positions
from activation_patching.free_text.rows import texts_of
from activation_patching.options import OPTIONS
from activation_patching.scale import fits, transcribed_rows
from activation_patching.scale.curves import CONTROLS, OWN, RUN, Curve
from activation_patching.scale.findings import ScaleEffect, erasures, scale_effects
from activation_patching.scale.fits import CueSubspaces
from activation_patching.scale.tables import chosen_row, places_of, tables_of, with_untouched
from common.clips.manifest import LABELS, read_manifest
from common.clips.pairs import KINDS
from common.compute import session
from common.compute.session import Session
from common.errors import InputError
from common.model.generation import generated
from common.model.lm import AudioLM
from common.model.prompts import PROMPTS, Question
from common.patching.leace import learn, nothing, scale_of
from common.patching.rerun import Edit, rerun
from common.run import command_line
from common.run.run_folder import read_record, read_table
from common.stats.word_errors import word_errors
from common.tracing.trace import states_at
from tests.helpers.runs import interrupt
from tests.tiny_models.listening import COPIES, listening_model
from tests.tiny_models.tiny import LAYERS, save_clips

READS = 0.3  # of the voice: its label is ahead from a factor of 1 / .3 - 1 = 2.3 on


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_clips(tmp_path_factory.mktemp("clips"), texts=2, speakers=("a",))


def start(data: Path, out: Path, *more: str) -> None:
    shared = ["--data", str(data), "--device", "cpu", "--out", str(out), "--intervention", "scale", "--limit", "8"]
    activation_patching.run.main([*shared, *more])


def effects(out: Path) -> dict[str, ScaleEffect]:
    return {f.kind: f for f in scale_effects({"chosen": read_table(out, "chosen")})}


def planted(reads: float, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *more: str) -> Path:
    lm = listening_model(tmp_path / "model", read_manifest(clips), reads=reads)
    monkeypatch.setattr(session, "load_model", lambda *_, **__: lm)
    start(clips, tmp_path / "out", "--model", str(tmp_path / "model"), *more)
    return tmp_path / "out"


def test_the_factors_of_a_run_that_names_none() -> None:
    assert command_line.argument_parser("", OPTIONS).parse_args([]).factors == [-1, 0, 1, 2, 4, 8]


def test_a_voice_that_is_read_weakly_is_answered_from_the_planted_factor_on(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = planted(READS, clips, tmp_path, monkeypatch, "--at", "last", "--factor", "-1", "2", "4")
    curve = read_table(out, "curve").set_index(["kind", "control", "factor"]).sort_index().loc["prosody", OWN]
    assert curve.voice.to_dict() == {-1: 0, 0: 0, 2: 0, 4: 1} and curve.words.to_dict() == {-1: 1, 0: 1, 2: 1, 4: 0}
    found = effects(out)["prosody"]
    assert (found.layers, found.factors) == ((COPIES + 1,) * 2, (4, 4)) and found.gain.value == 1 and found.decoded.value == 1
    assert found.helps and not found.readout  # block COPIES + 1 reads it; the head alone does not
    assert found.minus_direct.value == 1 and found.congruent is not None and found.congruent.value == 0
    assert found.asked_other.value == -1 and found.too_dear  # it knows no question: asked for the words, it loses them too
    scale = read_table(out, "scale").set_index(["kind", "control", "factor", "layer"]).sort_index().loc["prosody", OWN, 4]
    assert found.minus_readout.value == 1 - scale.voice[LAYERS] == 0  # the head reads the voice's part of h_L as well
    assert scale.direct[COPIES + 2] == 1 and scale.direct[COPIES + 1] == 0  # behind that block the change alone is the answer


def test_a_voice_that_is_not_read_helps_at_no_factor(clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does erasing it change anything."""
    out = planted(0.0, clips, tmp_path, monkeypatch, "--at", "last", "--factor", "-1", "4", "8")
    scale = read_table(out, "scale")
    own = scale[(scale.kind == "prosody") & (scale.control == OWN) & (scale.layer > COPIES)]
    rows = read_table(out, "scaled").query(f"kind == 'prosody' and control == '{OWN}' and layer > {COPIES}")
    assert (rows.decoded == 1).all() and (own.voice == 0).all()
    found = effects(out)["prosody"]
    assert found.gain.value == 0 and not found.helps and not found.readout
    erased_as_planted(out, 0)


def test_of_the_span_layers_up_to_the_copy_count(clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = planted(READS, clips, tmp_path, monkeypatch, "--at", "span", "--factor", "8", "--limit", "6")
    scale = read_table(out, "scale").set_index(["kind", "control", "factor", "layer"]).sort_index().loc["prosody", OWN, 8]
    assert scale.voice.to_dict() == {layer: float(layer <= COPIES) for layer in range(LAYERS + 1)}
    assert (scale.direct == 0).all()


def test_a_voice_that_is_answered_is_not_without_its_subspace(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From where the voice is copied to the last position on."""
    out = planted(3.0, clips, tmp_path, monkeypatch, "--at", "last", "--factor", "-1", "--limit", "40")
    assert erased_as_planted(out, 1).voice.min() > 0.9


def erased_as_planted(out: Path, answered: float) -> pd.DataFrame:
    """Assert what erasing gives where the voice was `answered` by all clips or by none; return the random subspace's table."""
    scale = read_table(out, "scale").query("factor == -1").set_index(["kind", "control", "layer"]).loc["prosody"]
    assert scale.loc[OWN].voice.to_dict() == {layer: answered * (layer <= COPIES) for layer in range(LAYERS + 1)}
    found = {f.kind: f for f in erasures({"erased": read_table(out, "erased")})}["prosody"]
    assert found.layers == (1, LAYERS - 1) and found.erased.value == pytest.approx(answered * COPIES / (LAYERS - 1))
    inner = scale.loc["random_subspace"].voice.loc[1 : LAYERS - 1]
    assert found.random.value == pytest.approx(inner.mean(), abs=1e-5)
    assert found.minus_random.value == pytest.approx(found.erased.value - found.random.value, abs=1e-5)
    return scale.loc["random_subspace"]


def test_a_run_goes_on_after_a_kill_and_its_subspaces_serve_another(
    tiny_folder: Path, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    model, out = ("--model", str(tiny_folder), "--at", "last", "--layers", "2"), tmp_path / "out"
    few = (*model, "--factor", "-1", "2")
    start(clips, out, *few)
    assert "voice made larger: answers with its label" in capsys.readouterr().out
    files = {
        "scaled.csv",
        "scale.csv",
        "erased.csv",
        "curve.csv",
        "chosen.csv",
        "subspaces.safetensors",
        "run.json",
        "files.json",
    }
    assert {f.name for f in out.iterdir()} == files | {"scale_curve.png", "scale_heatmap.png"}
    record = read_record(out)
    assert record["identity"]["factors"] == [-1, 2] and record["self_check"]["scale by splice - rerun"] < 1e-4
    whole = read_table(out, "scaled")
    assert set(whole.control) == {OWN, *CONTROLS} and set(whole.kind) == set(KINDS) and 0 not in set(whole.factor)
    interrupt(out, "scaled.csv")
    start(clips, out, *few)
    pd.testing.assert_frame_equal(read_table(out, "scaled"), whole, atol=2e-6)
    file = ("--subspaces", str(out / "subspaces.safetensors"))
    start(clips, tmp_path / "again", *model, *file, "--prompt", "voice", "--factor", "4")
    assert "fitted on the texts of 16 of 16 clips" in capsys.readouterr().out


def test_subspaces_of_something_else_are_refused(lm: AudioLM, tmp_path: Path) -> None:
    path = tmp_path / "subspaces.safetensors"
    spaces = CueSubspaces(*[dict.fromkeys((0, 2), nothing(8))] * 3)
    fits.save(path, dict.fromkeys(KINDS, spaces), {"labels": ["a", "b"], "at": "last", "texts": []})
    asked = SimpleNamespace(lm=lm, readout=SimpleNamespace(labels=("a", "b")), layers=(0, 2))
    for change, at, message in (
        ({}, "span", "fitted at last on the labels a, b; this run is at span"),
        ({"layers": (0, 3)}, "last", "has no layer 3; allowed: 0, 2"),
        ({}, "last", "of a model of width 8; this one's is 32"),
    ):
        with pytest.raises(InputError, match=message):
            fits.given(path, SimpleNamespace(**vars(asked) | change), [], at=at)  # type: ignore[arg-type]
    path.write_text("no tensors")
    with pytest.raises(InputError, match="not a file that this experiment writes"):
        fits.load(path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--factor", "0"), "--factor 0: changes nothing"),
        (("--align", "crop"), "--align does not go with --intervention scale"),
        (("--rank", "5"), "--rank 5: allowed: 1 to 4"),
        (("--subspaces", "missing"), "--subspaces .*missing: no such file"),
    ],
)
def test_what_does_not_go_together_is_one_line(options: tuple[str, ...], message: str, clips: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        start(clips, tmp_path / "out", *options)


def simulated(answer: dict[tuple[str, int, float], str], direct: dict[tuple[str, int, float], str]) -> pd.DataFrame:
    """Return rows of 25 texts x 5 voices that answer with the words, but at (control, layer, factor) with what `answer` says.

    `direct`: the same of the answers where no later block reads the change.
    """
    rows = []
    for text in range(25):
        for voice in LABELS:
            words = LABELS[text % 5]
            said = {"words": words, "voice": voice, "neither": next(x for x in LABELS if x not in (words, voice))}
            names = {"sample_id": f"{text}{voice}", "text_id": str(text), "speaker": "a", "source": "s", "half": text // 5 % 2}
            names |= {"semantic_label": words, "prosody_label": voice, "conflict": int(words != voice)}
            for kind in KINDS:
                own = [(OWN, RUN)] if words == voice else [(OWN, RUN), *((c, RUN) for c in CONTROLS)]
                own += [] if words == voice else [(OWN, "words" if kind == "prosody" else "voice")]
                for control, asked in own:
                    for layer in range(5):
                        for a in (2.0, 8.0):
                            place = (control, layer, a) if kind == "prosody" and asked == RUN else None
                            pred = {
                                "pred_scaled": said[answer.get(place, "words")],
                                "pred_direct": said[direct.get(place, "words")],
                            }
                            pred |= {
                                "pred_base": words,
                                "pred_asked": words,
                                "mass": 0.9,
                                "mass_base": 0.95,
                                "kl": 0.1,
                                "decoded": 1,
                            }
                            logits = {f"logit_{x}": 0.0 for x in LABELS}
                            fixed = {"kind": kind, "control": control, "asked": asked, "factor": a, "layer": layer}
                            rows.append({**names, **fixed, **pred, **logits})
    return pd.DataFrame(rows)


def only(rows: pd.DataFrame) -> ScaleEffect:
    rows = with_untouched(rows)
    (found,) = scale_effects({"chosen": chosen_row(rows, "prosody", places_of(rows)["prosody"])})
    return found


def transcribed(rows: pd.DataFrame, clips: int) -> pd.DataFrame:
    """Return what the first clips would write down of 5 words: one error untouched, one more for each unit of the factor."""
    own = rows[(rows.control == OWN) & (rows.asked == RUN) & (rows.conflict == 1)]
    own = own[own.sample_id.isin(own.sample_id.unique()[:clips])]
    return own[["curve_id", "layer"]].assign(word_errors=1 + own.factor, word_errors_base=1, words_said=5)


def test_word_error_rates_stand_beside_every_factor_and_the_chosen_one() -> None:
    rows = simulated({(OWN, 2, 8.0): "voice"}, {})
    rows["curve_id"] = rows[["sample_id", "kind", "control", "factor", "asked"]].astype(str).agg("|".join, axis=1)
    tables = tables_of(rows, transcribed(rows, 10))
    scale = tables["scale"].query("kind == 'prosody' and control == @OWN and layer == 2").set_index("factor")
    assert (scale.word_error_rate - (1 + scale.index) / 5).abs().max() < 1e-9 and set(scale.n_word_error_rate) == {10}
    assert tables["scale"].query("control != @OWN").word_error_rate.isna().all()
    (found,) = (f for f in scale_effects(tables) if f.kind == "prosody")
    assert found.word_errors is not None and found.word_errors_before is not None
    assert (found.word_errors.value, found.word_errors_before.value) == (pytest.approx(8 / 5), pytest.approx(1 / 5))
    assert found.word_errors.n == 10 and "word_error_rate" not in tables_of(rows)["scale"]


def test_a_clip_is_transcribed_as_reruns_say(lm: AudioLM, manifest: Path) -> None:
    """With a factor of 0 it is what the model says by itself; the prompt is the one that asks for the words."""
    samples = read_manifest(manifest)[:40]
    question, layers = Question(PROMPTS["speaker"], LABELS, LABELS), tuple(range(LAYERS + 1))
    session = Session(lm, question, SimpleNamespace(ids=(5, 6)), None, (), None, SimpleNamespace(patch=None), layers, ())  # type: ignore[arg-type]
    session = transcribed_rows.asking_to_transcribe(session, samples[0], transcribed_rows.PROMPTS[""], (1, 2))
    clip = session.encode(samples[0])
    states = torch.stack([states_at(lm, c, positions(c, "last"))[:, 0, 0] for c in map(session.encode, samples)])
    codes = torch.arange(len(samples)) % 5
    own = {layer: learn(states[:, layer], codes, rank=4, seed=0)[0] for layer in layers}
    spaces = SimpleNamespace(of=lambda sample: dict.fromkeys(KINDS, CueSubspaces(own, own, own)))
    curves = [Curve(samples[0], "prosody", OWN, a, RUN) for a in (40.0, -1.0)]
    rows = transcribed_rows.transcribed_rows(session, spaces, curves, at="last")  # type: ignore[arg-type]
    assert [(r["curve_id"], r["layer"]) for r in rows] == [(c.name, layer) for c in curves for layer in (1, 2)]

    def by_hand(edit: Edit, layer: int) -> str:
        def next_token(said: tuple[int, ...], _: Sequence[int]) -> torch.Tensor:
            return rerun(lm, clip.continued(said), layer, positions(clip, "last"), edit)[None]

        return texts_of(lm, next_token, 1, most=transcribed_rows.MOST_TOKENS)[0]

    wanted = [by_hand(scale_of(c.factor, own), layer) for c in curves for layer in (1, 2)]
    assert [r["transcribed"] for r in rows] == wanted and len(set(wanted)) > 1
    untouched = generated(lm, clip, transcribed_rows.MOST_TOKENS)
    assert {r["transcribed_base"] for r in rows} == {by_hand(scale_of(0.0, own), 1)} == {untouched}
    assert all((r["word_errors"], r["words_said"]) == word_errors(r["transcribed"], samples[0].text) for r in rows)
    itself = replace(samples[0], text=rows[0]["transcribed_base"])  # of which the model by itself gets nothing wrong
    rows = transcribed_rows.transcribed_rows(session, spaces, [replace(c, sample=itself) for c in curves], at="last")  # type: ignore[arg-type]
    assert {r["word_errors_base"] for r in rows} == {0} and max(r["word_errors"] for r in rows) > 0


def test_what_the_head_alone_turns_is_a_readout_and_chosen_last() -> None:
    reads, bolted, last = (OWN, 2, 8.0), (OWN, 3, 2.0), (OWN, 4, 8.0)
    found = only(simulated(dict.fromkeys((bolted, last), "voice"), {bolted: "voice", last: "voice"}))
    assert (found.layers, found.factors) == ((3, 3), (2, 2)) and found.readout  # l = L is never chosen
    found = only(simulated(dict.fromkeys((reads, bolted), "voice"), {bolted: "voice"}))
    assert (found.layers, found.factors) == ((2, 2), (8, 8)) and found.helps and not found.readout


def test_what_a_random_subspace_does_as_well_does_not_help() -> None:
    found = only(simulated({(OWN, 2, 8.0): "voice", ("random_subspace", 2, 8.0): "voice"}, {}))
    assert found.gain.value == 1 and found.minus_random.value == 0 and not found.helps


def test_layer_and_factor_come_from_the_other_half_of_the_texts() -> None:
    """Of one half layer 1 turns, of the other layer 3: each is tried on the other, where it does nothing."""
    rows = simulated({}, {})
    turns = (rows.kind == "prosody") & (rows.control == OWN) & (rows.asked == RUN) & (rows.factor == 8)
    turns &= rows.layer == rows.half.map({0: 1, 1: 3})
    rows.loc[turns, "pred_scaled"] = rows.prosody_label[turns]
    found = only(rows)
    assert found.layers == (3, 1) and found.gain.value == 0
