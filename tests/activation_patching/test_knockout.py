"""Runs of knockout: their files, their tables against a recomputation, what is refused, and planted routes."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from activation_patching.knockout.findings import Routes, routes
from activation_patching.knockout.tables import tables_of
from activation_patching.knockout.windows import Positions, blocks, window_names
from common.clips.manifest import LABELS
from common.errors import InputError
from common.run.run_folder import read_record
from tests.helpers.runs import interrupt, start
from tests.tiny_models.tiny import LAYERS, save_clips
from tests.tiny_models.unlike import HYBRID

KNOCKOUT = ("--intervention", "knockout")
EDGES = {"audio_to_question", "audio_to_last", "question_to_last", "audio_to_all"}


@pytest.mark.parametrize(
    ("window", "expected"),
    [
        ("from", [(0, 6), (1, 6), (5, 6), (6, 6)]),
        ("up_to", [(0, 0), (0, 1), (0, 5), (0, 6)]),
        ("around_1", [(0, 1), (1, 2), (5, 6), (6, 6)]),
        ("around_5", [(0, 3), (0, 4), (3, 6), (6, 6)]),
    ],
)
def test_windows_are_clipped_and_end_with_the_blocks(window: str, expected: list[tuple[int, int]]) -> None:
    assert window in window_names([1, 5])
    assert [blocks(window, layer, 6) for layer in (0, 1, 5, 6)] == expected


def test_edges_part_the_prompt() -> None:
    """The question is the tail without its last token; the control is without position 0, and half as large as the audio."""
    where = Positions(range(10, 30), 40)
    assert where.edge("audio_to_question") == (range(10, 30), range(30, 39))
    assert where.edge("question_to_last") == (range(30, 39), range(39, 40))
    assert where.edge("prefix_to_all") == (range(1, 10), range(30, 40))
    assert [Positions(range(n, n + 20), n + 30).control for n in (10, 11)] == [False, True]


def test_a_run_writes_its_files_and_goes_on_after_a_kill(
    tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    clips = save_clips(tmp_path / "clips", texts=1, speakers=("a",))
    out, more = tmp_path / "out", (*KNOCKOUT, "--limit", "6", "--layers", "0", "2")
    start("activation_patching", tiny_folder, clips, out, *more)
    assert "words: direct route alone" in capsys.readouterr().out
    assert {f.name for f in out.iterdir()} == {
        "knockout.csv",
        "effects.csv",
        "summary.csv",
        "run.json",
        "files.json",
        "knockout_curve.png",
    }
    rows = pd.read_csv(out / "knockout.csv")
    assert set(rows.edge) - {"prefix_to_all"} == EDGES and set(rows.window) == {"from", "up_to", "around_1", "around_5"}
    assert {tuple(x) for _, x in rows.groupby("curve_id").layer} == {(0, 2, LAYERS)}
    logits, base = (rows[[f"{name}_{label}" for label in LABELS]].to_numpy() for name in ("logit", "base"))
    uncut = ((rows.window == "up_to") & (rows.layer == 0)) | ((rows.window != "up_to") & (rows.layer == LAYERS))
    moved = np.abs(logits - base).max(axis=1)
    assert (
        moved[uncut].max() == 0
        and moved[(rows.window == "from") & (rows.layer == 0) & (rows.edge == "audio_to_all")].min() > 1e-4
    )
    record = read_record(out)
    assert record["identity"]["intervention"] == "knockout" and set(record["keys_hidden"]) == {
        "prefix without position 0",
        "audio",
    }
    assert record["self_check"]["audio hidden everywhere - silence, hidden everywhere"] < 1e-4
    interrupt(out, "knockout.csv")
    start("activation_patching", tiny_folder, clips, out, *more)
    pd.testing.assert_frame_equal(pd.read_csv(out / "knockout.csv"), rows, atol=2e-6)


def test_what_cannot_be_cut_or_asked_is_one_line_and_writes_nothing(tiny_folder: Path, tmp_path: Path) -> None:
    clips = save_clips(tmp_path / "clips", texts=1, speakers=("a",))
    with pytest.raises(InputError, match="--intervention knockout: block 0 keeps more than keys and values"):
        start("activation_patching", HYBRID["hybrid"](tmp_path / "model"), clips, tmp_path / "out", *KNOCKOUT, "--limit", "4")
    with pytest.raises(InputError, match="--rank does not go with --intervention knockout; leave it out"):
        start("activation_patching", tiny_folder, clips, tmp_path / "out", *KNOCKOUT, "--rank", "2")
    assert not list((tmp_path / "out").glob("*.csv"))


def answering(read: dict[str, str]) -> pd.DataFrame:
    """Return rows of 100 clips that answer with the words uncut, and with what `read` says where an edge is cut from l on.

    "words", "voice" or a constant label; texts x voices in equal numbers. What `read` does not name changes nothing.
    """
    rows = []
    for t in range(25):
        for voice in LABELS:
            words = LABELS[t % 5]
            if words == voice:
                continue
            said = {"words": words, "voice": voice}
            for edge, source in (dict.fromkeys(sorted(EDGES), "words") | read).items():
                for layer in range(4):
                    cut = said.get(source, source) if layer < 3 else words
                    logits = {f"logit_{x}": float(x == cut) for x in LABELS} | {f"base_{x}": float(x == words) for x in LABELS}
                    names = {"sample_id": f"{t}{voice}", "text_id": str(t), "speaker": "a", "source": "s"}
                    names |= {"semantic_label": words, "prosody_label": voice, "edge": edge, "window": "from", "layer": layer}
                    rows.append({**names, **logits, "pred_base": words, "pred_cut": cut})
    return pd.DataFrame(rows)


def test_dependence_is_what_a_recomputation_gives() -> None:
    """On rows with a third of their answers drawn anew: the rate of a label where the words say it, minus where it is third."""
    rows = answering({"audio_to_question": "voice"})
    rng = np.random.default_rng(0)
    anew = rng.random(len(rows)) < 0.3
    rows.loc[anew, "pred_cut"] = rng.choice(LABELS, anew.sum())
    rows = rows[rows.edge == "audio_to_question"]
    effects = tables_of(pd.concat([rows, rows.assign(edge="audio_to_last"), rows.assign(edge="audio_to_all")]))["effects"]
    effects = effects[effects.edge == "audio_to_question"].set_index(["kind", "layer"])
    for layer, at in rows.groupby("layer"):
        for kind, own, other in (("semantic", "semantic_label", "prosody_label"), ("prosody", "prosody_label", "semantic_label")):
            total, weight, change = 0.0, 0, 0.0
            for (y, shared), targets in at.groupby([own, other]):
                thirds = at[(at[other] == shared) & (at[own] != y)]
                total += len(targets) * ((targets.pred_cut == y).mean() - (thirds.pred_cut == y).mean())
                change -= len(targets) * ((targets.pred_base == y).mean() - (thirds.pred_base == y).mean())
                weight += len(targets)
            found = effects.loc[(kind, layer)]
            assert found.dependence == pytest.approx(total / weight, abs=1e-9)
            assert found.effect == pytest.approx((total + change) / weight, abs=1e-9)


def test_a_constant_answer_depends_on_nothing() -> None:
    effects = tables_of(answering({"audio_to_last": "angry"}))["effects"]
    effects = effects[effects.edge == "audio_to_last"]
    assert effects[effects.layer < 3].dependence.abs().max() < 1e-9
    semantic = effects[effects.kind == "semantic"].set_index("layer")
    assert semantic.dependence[3] == 1 and semantic.effect[0] == -1 and semantic.effect_logit[0] == pytest.approx(-1)


def route(rows: pd.DataFrame, kind: str) -> Routes:
    (found,) = (f for f in routes(tables_of(rows)) if f.kind == kind)
    return found


def test_planted_routes_are_found_and_what_is_cut_in_some_blocks_alone_is_none() -> None:
    """The words go directly, the voice through the question; uncut a third of the texts are answered with the voice."""
    rows = answering({"audio_to_question": "words", "audio_to_last": "voice", "audio_to_all": "angry"})
    by_voice = rows.text_id.astype(int) % 3 == 0
    rows.loc[by_voice, "pred_base"] = rows.prosody_label[by_voice]
    rows[[f"base_{x}" for x in LABELS]] = [[float(x == own) for x in LABELS] for own in rows.pred_base]
    words, voice = (route(rows, kind) for kind in ("semantic", "prosody"))
    kept = words.logit_direct.value, words.logit_through_question.value  # of a loss that the untouched answers alone can have
    assert kept == (pytest.approx(1 / words.untouched.value, abs=0.05), pytest.approx(0)) and words.better == 1
    assert voice.logit_direct_minus_through.value < 0 and voice.better == -1
    share = rows[~by_voice].text_id.nunique() / 25
    assert (words.direct.value, words.through_question.value) == (1, 0) and words.direct_minus_through.low > 0
    assert (voice.direct.value, voice.through_question.value) == (0, 1) and voice.direct_minus_through.high < 0
    assert words.untouched.value == pytest.approx(share, abs=0.03) and voice.untouched.value == pytest.approx(1 - share, abs=0.03)
    rows.loc[rows.layer == 0, "pred_cut"] = rows.semantic_label  # from block 1 on is not all blocks
    assert route(rows, "semantic").through_question.value == 1 and route(rows, "prosody").through_question.value == 0


def test_a_route_that_carries_a_habit_carries_nothing() -> None:
    """With the direct route alone every clip is answered "angry", which some clips' words say."""
    found = route(answering({"audio_to_question": "angry"}), "semantic")
    assert found.direct.value == pytest.approx(0, abs=1e-9) and found.direct.side == 0 and found.through_question.value == 1
