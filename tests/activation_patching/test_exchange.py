"""Exchange in a planted model: what its states know, and whether its answer reads it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import activation_patching.run
from activation_patching.exchange.fits import positions
from activation_patching.span.findings import exchange_effects
from activation_patching.span.tables import tables_of
from common.clips.manifest import LABELS, read_manifest
from common.compute import session
from common.errors import InputError
from common.model.encoding import EncodedClip, before_last, encode_clip
from common.model.lm import AudioLM
from common.model.load import load_model
from common.model.prompts import PROMPTS
from common.patching.layer_batch import sweep
from common.patching.leace import exchange_of, learn
from common.patching.splice import splice
from common.run.run_folder import read_record
from common.tracing.trace import own_logits, record, states_at
from tests.helpers.runs import interrupt, start
from tests.tiny_models.tiny import LAYERS, save_clips, save_tiny_model

BLOCK = 1  # where the label goes from the audio span to what comes after it
CODE, COPY = slice(0, 5), slice(5, 10)  # of d_model: the label in the audio span's states, and what block BLOCK copies it to


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """10 texts x 5 voices x 2 speakers, all equally long, so that spans stand in pairs."""
    return save_clips(tmp_path_factory.mktemp("clips"), texts=2, equal_length=True)


@pytest.fixture(scope="module")
def planted(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[bool], AudioLM]:
    """A random model whose audio states hold the voice's label as a one-hot code, and whose head reads the copy of it, or not.

    Block BLOCK copies to every position the mean of what the positions before it hold: the code, and three of the audio's other
    dimensions, so that there is more to erase than the label. No other block does anything.
    """
    folder = save_tiny_model(tmp_path_factory.mktemp("planted"), only_block=BLOCK)
    told = {s.audio: LABELS.index(s.prosody_label) for s in read_manifest(clips)}

    def build(reads: bool) -> AudioLM:
        lm = load_model(str(folder), device=torch.device("cpu"), dtype=torch.float32)
        key = {_key(encode_clip(lm, audio, PROMPTS["speaker"]).inputs["input_features"]): x for audio, x in told.items()}
        current: list[int] = []
        tower, projector = lm.model.model.audio_tower, lm.model.model.multi_modal_projector
        tower.register_forward_pre_hook(
            lambda _, args, kw: current.append(key.get(_key(_features(args, kw)), -1)), with_kwargs=True
        )
        projector.register_forward_hook(lambda _, args, out: _coded(out, current.pop()))
        with torch.no_grad():
            lm.model.get_input_embeddings().weight[:, :10] = 0
            attention = lm.blocks[BLOCK].self_attn
            for part in (attention.q_proj, attention.k_proj, attention.v_proj):
                part.weight.zero_(), part.bias.zero_()
            attention.o_proj.weight.zero_()
            attention.v_proj.weight[:8, [*range(5), 10, 11, 12]] = torch.eye(8)
            attention.o_proj.weight[[*range(5, 10), 20, 21, 22], :8] = 8 * torch.eye(8)
            lm.blocks[BLOCK].mlp.down_proj.weight.zero_()
            head = lm.model.get_output_embeddings().weight
            ids = [lm.processor.tokenizer.convert_tokens_to_ids(label) for label in LABELS]
            head[ids, :10] = head[ids, 20:23] = 0
            if reads:
                head[ids] = 0
                head[ids, COPY] = torch.eye(5)
        return lm

    return build


def _key(features: torch.Tensor) -> float:
    return round(float(features.double().sum()), 3)


def _features(args: tuple, kwargs: dict) -> torch.Tensor:
    return args[0] if args else kwargs["input_features"]


def _coded(out: torch.Tensor, label: int) -> torch.Tensor:
    out = 0.5 * out
    out[..., :10] = 0
    if label >= 0:  # silence of the self-check is no clip
        out[..., label] = 3
    return out


def run(lm: AudioLM, clips: Path, out: Path, monkeypatch: pytest.MonkeyPatch, *more: str) -> pd.DataFrame:
    monkeypatch.setattr(session, "load_model", lambda *_, **__: lm)
    arguments = ["--model", lm.model.name_or_path, "--data", str(clips), "--device", "cpu", "--out", str(out)]
    activation_patching.run.main([*arguments, "--kinds", "prosody", "--max-pairs", "20", *more])
    return pd.read_csv(out / "layers.csv").set_index(["control", "layer"])


@pytest.mark.parametrize("at", ["last", "span"])
@pytest.mark.parametrize("reads", [True, False])
def test_planted_truth(reads: bool, at: str, planted, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    lm = planted(reads)
    # The label is in the span's states from l = 0, and matters there until block BLOCK has copied it; after that the copy does.
    matters = range(BLOCK + 1) if at == "span" else range(BLOCK + 1, LAYERS + 1)
    others = [layer for layer in range(LAYERS + 1) if layer not in matters]
    exchanged = run(lm, clips, tmp_path / "exchange", monkeypatch, "--intervention", "exchange", "--at", at)
    real, whole = exchanged.loc["none"], exchanged.loc["whole"]
    effects = pd.read_csv(tmp_path / "exchange" / "effects.csv").set_index(["control", "layer"]).loc["none"]
    assert (real.decoded[matters] > 0.95).all()  # known, whether or not it is read
    assert (exchanged.loc["random_subspace"].flip_from_base <= 0.05).all()
    if reads:
        assert (real.flip_to_target[matters] == 1).all() and (whole.flip_to_target[matters] == 1).all()
        assert ((real.delta_logit / whole.delta_logit)[matters] - 1).abs().max() < 0.1
        assert (real.flip_from_base[others] == 0).all()
        assert effects.effect[matters].min() == 1 and effects.effect[others].abs().max() == 0
    else:
        for table in (real, whole):
            assert (table.flip_from_base == 0).all()
    summary = pd.read_csv(tmp_path / "exchange" / "summary.csv").set_index("control")
    assert (summary.minus_random["none"] > 0.15) == reads and np.isnan(summary.minus_random["random_subspace"])


def test_an_edit_of_the_last_position_by_splice_is_what_a_rerun_gives(lm: AudioLM, manifest: Path) -> None:
    clip = encode_clip(lm, manifest.parent / "happy_0_sad_a.wav", PROMPTS["speaker"])
    rows, own = _both(lm, clip, manifest, "last")
    assert (rows[1][-1] - rows[1][0]).abs().max() > 0.01  # row L is an effect
    torch.testing.assert_close(rows[0], rows[1], atol=1e-4, rtol=0)
    assert largest(rows[0], own) > 0.05


def test_an_edit_of_the_span_by_layer_batch_is_what_a_rerun_gives(lm: AudioLM, manifest: Path) -> None:
    clip = encode_clip(lm, manifest.parent / "happy_0_sad_a.wav", PROMPTS["speaker"])
    rows, own = _both(lm, clip, manifest, "span")
    torch.testing.assert_close(rows[0], rows[1], atol=1e-4, rtol=0)
    torch.testing.assert_close(rows[0][-1], own, atol=1e-4, rtol=0)
    assert largest(rows[0], own) > 0.05


def largest(x: torch.Tensor, y: torch.Tensor) -> float:
    return float((x - y).abs().max())


def _both(lm: AudioLM, clip: EncodedClip, manifest: Path, at: str) -> tuple[tuple[torch.Tensor, torch.Tensor], torch.Tensor]:
    """Return an exchange's logits [layer, vocab] by the fast way and by rerun, and the clip's own."""
    others = [encode_clip(lm, s.audio, PROMPTS["speaker"]) for s in read_manifest(manifest)[:40]]
    states = torch.stack([states_at(lm, c, positions(c, at))[:, 0].mean(dim=1) for c in others])
    own = [learn(states[:, i], torch.arange(40) % 5, rank=4, seed=0)[0] for i in range(LAYERS + 1)]
    edit = exchange_of(own, 2 * states_at(lm, clip, positions(clip, at)))
    slow = sweep(lm, "rerun", clip, positions(clip, at), edit, range(LAYERS + 1))
    if at == "span":
        return (sweep(lm, "layer_batch", clip, clip.span, edit, range(LAYERS + 1)), slow), own_logits(lm, clip)
    trace = record(lm, before_last(clip))[0]
    assert trace.tail.shape[-2] == 1
    tail = torch.stack([edit(layer, h) for layer, h in enumerate(trace.tail)])
    return (splice(lm, trace, [replace(trace, tail=tail)])[0], slow), own_logits(lm, clip)


@pytest.mark.parametrize("at", ["last", "span"])
def test_a_run_goes_on_after_a_kill_and_says_what_it_checked(
    at: str, tiny_folder: Path, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    options = ("--intervention", "exchange", "--at", at, "--kinds", "prosody", "--max-pairs", "8")
    start("activation_patching", tiny_folder, clips, tmp_path, *options)
    assert "the voice exchanged: effect" in capsys.readouterr().out
    files = {"patches.csv", "layers.csv", "effects.csv", "summary.csv", "run.json", "files.json", "exchange_curve.png"}
    assert {f.name for f in tmp_path.iterdir()} == files
    record = read_record(tmp_path)
    assert (record["identity"]["intervention"], record["identity"]["at"], record["identity"]["rank"]) == ("exchange", at, 4)
    checked = record["self_check"]
    assert checked["exchange of rank 0 - unedited"] < 1e-5 and checked["exchange of the whole space - whole state"] < 1e-3
    assert checked[f"exchange by {'splice' if at == 'last' else 'layer_batch'} - rerun"] < 1e-4
    rows = tmp_path / "patches.csv"
    whole = pd.read_csv(rows)
    if at == "span":
        assert (whole[whole.layer == LAYERS].flip_from_base == 0).all()  # nothing reads the span of h_L
    interrupt(tmp_path, "activation_patching")
    start("activation_patching", tiny_folder, clips, tmp_path, *options)
    pd.testing.assert_frame_equal(pd.read_csv(rows), whole, atol=2e-6)


@pytest.mark.parametrize(
    "options, message",
    [
        (("--at", "last"), "--at and --rank say how --intervention exchange and --intervention scale work"),
        (("--intervention", "exchange", "--rank", "5"), "--rank 5: allowed: 1 to 4"),
        (
            ("--intervention", "exchange", "--align", "splice"),
            "--align splice: allowed: stretch, crop with --intervention exchange",
        ),
        (("--intervention", "exchange", "--at", "last", "--align", "crop"), "--align crop: allowed"),
    ],
)
def test_options_that_do_not_go_together(
    options: tuple[str, ...], message: str, tiny_folder: Path, clips: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        start("activation_patching", tiny_folder, clips, tmp_path, *options)


def test_too_few_texts_to_learn_from_is_one_line(tiny_folder: Path, tmp_path: Path) -> None:
    few = save_clips(tmp_path / "few", texts=1, speakers=("a",))
    with pytest.raises(InputError, match=r"semantic:.*: of the 25 clips \d+ have other texts and speakers, and fewer than 3"):
        start("activation_patching", tiny_folder, few, tmp_path / "out", "--intervention", "exchange")


def test_several_streams_are_refused(tmp_path: Path, clips: Path) -> None:
    from tests.tiny_models.families import save_gemma3n, without_vision_tower

    with without_vision_tower(), pytest.raises(InputError, match="carries 4 streams side by side"):
        more = ("--intervention", "exchange", "--kinds", "prosody")
        start("activation_patching", save_gemma3n(tmp_path / "gemma"), clips, tmp_path / "out", *more)


CHANGED = (2, 3, 4)  # an exchange changes answers from l = 2 on


def rows(changed: dict[str, float], *, n: int = 120, seed: int = 0) -> pd.DataFrame:
    """Return rows of prosody pairs; an exchange brings the target for the recipient's own label in a share of the pairs, by its
    control.
    """
    rng, table = np.random.default_rng(seed), []
    for control, share in changed.items():
        for i in range(n):
            moves, text = rng.random() < share, f"t{i % 12}"
            own, target = "happy", ("sad", "surprised")[i // 12 % 2]
            for layer in range(LAYERS + 1):
                moved = moves and layer in CHANGED
                answer = target if moved else own
                same = f"prosody:{i}<-{i + 1}"
                row = {"pair_id": same if control == "none" else f"{same}|{control}:{i + 1}", "true_pair_id": same}
                row |= {"kind": "prosody", "control": control, "target": target, "layer": layer, "kv_shared": 0}
                row |= {"pred_base": own, "pred_patch": answer}
                row |= {f"logit_{x}": float(x == answer) for x in LABELS} | {f"base_{x}": float(x == own) for x in LABELS}
                row |= {"flip_to_target": int(answer == target), "flip_from_base": int(moved)}
                row |= {"delta_logit": float(answer == target) - float(own == target)}
                for role, voice in (("recipient", own), ("donor", target)):
                    row |= {f"{role}_text_id": text, f"{role}_semantic_label": "neutral", f"{role}_prosody_label": voice}
                table.append(row | {"intervention": "exchange", "at": "last", "rank": 4, "decoded": int(layer > 0)})
    return pd.DataFrame(table)


def test_an_exchange_that_a_random_subspace_does_as_well_is_no_finding() -> None:
    table = rows({"none": 0.5, "random_subspace": 0.5, "whole": 0.9})
    (found,) = exchange_effects(tables_of(table))
    assert found.effect.side == found.random.side == 1 and found.minus_random.side == 0


def test_an_exchange_is_held_against_the_random_subspace_and_the_whole_state_on_the_same_pairs() -> None:
    table = rows({"none": 0.4, "random_subspace": 0.05, "whole": 0.8})
    tables = tables_of(table)
    (found,) = exchange_effects(tables)
    by_target = table[table.layer == 3].groupby(["control", "target"]).flip_from_base.mean()
    effect = {c: by_target[c].mean() for c in ("none", "random_subspace", "whole")}  # no third label ever comes
    assert found.effect.value == pytest.approx(2 / 3 * effect["none"])
    assert found.minus_random.value == pytest.approx(2 / 3 * (effect["none"] - effect["random_subspace"]))
    assert found.minus_random.side == 1
    assert found.of_whole is not None and found.of_whole.value == pytest.approx(effect["none"] / effect["whole"])
    assert found.of_whole.low < found.of_whole.value < found.of_whole.high
    assert set(tables["effects"].control) == set(tables["summary"].control) == {"none", "random_subspace", "whole"}


def test_of_a_whole_state_that_does_nothing_there_is_no_share() -> None:
    (found,) = exchange_effects(tables_of(rows({"none": 0.4, "random_subspace": 0.0, "whole": 0.0})))
    assert found.of_whole is None


def test_pairs_that_lack_a_control_are_left_out_of_the_comparison_whatever_the_order_of_their_ids() -> None:
    table = rows({"none": 0.4, "random_subspace": 0.4})
    some = table[(table.control == "none") | table.true_pair_id.str.contains(r":\d?\d<-")]
    (found,) = exchange_effects(tables_of(some.sample(frac=1, random_state=0)))
    assert found.effect.n == found.random.n == 100
    equal = table[table.control == "none"]
    again = equal.assign(control="random_subspace", pair_id=equal.pair_id + "|random_subspace:" + equal.true_pair_id.str[-1])
    (found,) = exchange_effects(tables_of(pd.concat([equal, again])))
    assert (found.minus_random.value, found.minus_random.high) == (0, found.minus_random.low) == (0, 0)  # pair by pair


def test_without_a_random_subspace_nothing_is_found() -> None:
    assert exchange_effects(tables_of(rows({"none": 0.8}))) == []
