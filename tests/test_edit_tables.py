"""Tables of edits by hand: paired with their controls, and how much of the whole state's effect a subspace carries."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
from activation_patching.edited import carried, edit_tables
from activation_patching.facts import edit_facts
from activation_patching.words import edit_statements

import report.build
from common.clips.samples import LABELS
from common.running.output import read_record, write_record, write_tables
from report.inputs import read_outputs
from report.wording import zh
from tests.study import change_record, save_study


def rows(edit: str, at: str, effect: dict[str, float], *, n: int = 60, seed: int = 0) -> pd.DataFrame:
    """Return rows of 4 layers; from l = 2 on an edit changes the answer to the target in a share of the pairs, by its control.

    Of erasure it leaves the target, which the recipient said.
    """
    rng, table = np.random.default_rng(seed), []
    for control, share in effect.items():
        for i in range(n):
            moves, text = rng.random() < share, str(i % 12)
            for layer in range(4):
                moved = moves and layer >= 2
                target, base = ("sad", "sad") if edit == "erase" else ("sad", "happy")
                answer = ("angry" if edit == "erase" else "sad") if moved else base
                pair = f"prosody:{i}<-{i + 1}"
                name = pair if control == "none" else f"{pair}|{control}:{i + 1}"
                row = {"pair_id": name, "kind": "prosody", "control": control}
                row |= {"target": target, "layer": layer, "pred_base": base, "pred_donor": "sad", "pred_patch": answer}
                row |= {f"logit_{label}": float(label == answer) for label in LABELS}
                row |= {"flip_to_target": int(answer == target), "flip_from_base": int(moved)}
                row |= {"delta_logit": float(answer == target) - float(base == target), "delta_margin": -float(moved)}
                row |= {f"{role}_text_id": text for role in ("recipient", "donor")}
                row |= {"intervention": edit, "at": at, "rank": 4, "told": 1, "own_run_difference": 0.0, "engine": "splice"}
                table.append(row)
    return pd.DataFrame(table)


def test_erasure_is_held_against_the_random_subspace() -> None:
    table = rows("erase", "last", {"none": 0.8, "random_subspace": 0.1})
    tables = edit_tables(table, seed=0)
    assert set(tables) == {"layers", "paired", "transfer"}
    primary = tables["transfer"][tables["transfer"].primary].iloc[0]
    last = table[table.layer == 3].groupby("control").flip_from_base.mean()
    assert (primary.outcome, primary.first_layer, primary.last_layer) == ("changed", 1, 3)
    np.testing.assert_allclose(primary.difference, 2 / 3 * (last["none"] - last["random_subspace"]))  # of l = 1, 2 and 3
    facts = edit_facts(tables)["prosody"]
    assert facts["changed"].verdict == "more" and facts["layers"].verdict == "2 to 3"
    assert "the answer uses what the states there tell of the voice" in edit_statements("prosody", facts)[0]
    assert len(zh.edit_sentences("prosody", facts)) == len(edit_statements("prosody", facts)) == 3


def test_a_change_that_a_random_subspace_makes_too_is_no_finding() -> None:
    for edit in ("erase", "exchange"):
        table = rows(edit, "last", {"none": 0.5, "random_subspace": 0.5, "whole": 0.9})
        facts = edit_facts(edit_tables(table, seed=0))["prosody"]
        first = facts["changed" if edit == "erase" else "flips"]
        assert first.verdict == "none" and "it is not shown" in edit_statements("prosody", facts)[0]
        if edit == "exchange":
            assert "no share can be named" in edit_statements("prosody", facts)[2]


def test_what_a_subspace_carries_is_a_ratio_on_the_same_pairs() -> None:
    table = rows("exchange", "span", {"none": 0.4, "random_subspace": 0.0, "whole": 0.8})
    share, mean = carried(table, seed=0), carried(table, seed=0, mean=True)
    flips = table[table.layer == 2].groupby("control").flip_to_target.mean()
    expected = flips["none"] / flips["whole"]
    assert share.flips.isna().tolist() == [True, True, False, False]  # where the whole state does nothing there is no share
    np.testing.assert_allclose(share.flips[2:], expected)
    np.testing.assert_allclose((mean.flips[0], mean.delta[0]), expected)
    assert mean.flips_lo[0] < expected < mean.flips_hi[0]
    facts = edit_facts(edit_tables(table, seed=0))["prosody"]
    assert facts["flips"].row == "transfer.csv, mean of l = 0 to 2"  # at l = L nothing reads the span
    assert f"{expected:.2f}" in edit_statements("prosody", facts)[2]


def test_without_controls_nothing_is_claimed() -> None:
    facts = edit_facts(edit_tables(rows("erase", "last", {"none": 0.8}), seed=0))["prosody"]
    (said,) = edit_statements("prosody", facts)
    assert "no controls were run" in said and len(zh.edit_sentences("prosody", facts)) == 1


def test_the_report_shows_the_edits_below_a_runs_folder(tmp_path: Path) -> None:
    study = save_study(tmp_path)
    for name, effect in (("erase", {"none": 0.8, "random_subspace": 0.1}), ("exchange", {"none": 0.4, "whole": 0.8})):
        out = study / "patching" / f"{name}_last"
        out.mkdir()
        table = rows(name, "last", effect | {"random_subspace": 0.0})
        table.to_csv(out / "patches.csv", index=False)
        write_tables(out, edit_tables(table, seed=0))
        write_record(out, read_record(study / "patching"))
        change_record(out, identity__edit=name, identity__at="last")
    change_record(out, identity__prompt="another")  # of another study: passed over
    report.build.main(["--lens", str(study / "lens"), "--patching", str(study / "patching"), "--out", str(tmp_path / "report")])
    for language, end in (("en", ""), ("zh", ".zh")):
        text = (tmp_path / "report" / f"report{end}.md").read_text(encoding="utf-8")
        assert ("Erasing the voice" if language == "en" else "抹除韵律") in text
        assert "Exchanging" not in text and "交换韵律" not in text
        figure = re.search(r"!\[erase\]\((.*)\)", text)
        assert figure and (tmp_path / "report" / figure[1]).is_file()
    assert "patching/erase_last" in str(read_outputs("patching", study / "patching" / "erase_last").values["why"])
