"""`--layers`: rows at some layers are those of the whole run, and what is said of them is said of these layers alone."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from activation_patching.facts import patching_facts
from logit_lens.facts import lens_facts
from logit_lens.words import lens_statements

from activation_patching.tables import patch_tables
from common.errors import InputError
from common.stats.covariance import estimate
from common.stats.design import Design, memberships
from common.stats.landmarks import crossing
from logit_lens.tables import lens_tables
from tests.test_scripts import ROWS, SCRIPTS
from tests.test_scripts import start as start_script
from tests.tiny import LAYERS

LISTED = (0, 1, LAYERS)  # of 0 to 4: unevenly spaced


def start(name: str, model: Path, data: Path, out: Path, *more: str) -> None:
    fewer = ("--max-pairs", "8", "--controls", "0.5") if name == "activation_patching" else ()
    start_script(name, model, data, out, *fewer, *more)


def rows_of(out: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(out / ROWS[name], dtype={"text_id": str})


@pytest.mark.parametrize(("name", "more"), [*((n, ()) for n in SCRIPTS), ("activation_patching", ("--align", "crop"))])
def test_rows_at_listed_layers_are_those_of_the_whole_run_and_so_are_their_statistics(
    name: str, more: tuple[str, ...], tiny_folder: Path, manifest: Path, tmp_path: Path
) -> None:
    start(name, tiny_folder, manifest, tmp_path / "whole", *more)
    start(name, tiny_folder, manifest, tmp_path / "some", "--layers", "1", *more)
    whole, some = (rows_of(tmp_path / d, name) for d in ("whole", "some"))
    thinned = whole[whole.layer.isin(LISTED)].reset_index(drop=True)
    pd.testing.assert_frame_equal(some, thinned, atol=2e-5)  # batches of other sizes round otherwise
    tables = (lens_tables if name == "logit_lens" else patch_tables)(thinned, seed=0)
    for table, of_thinned in tables.items():
        written = pd.read_csv(tmp_path / "some" / f"{table}.csv", keep_default_na=False, na_values=[""])
        found, expected = (
            t[t.control != "itself"] if "control" in t else t
            for t in (written, of_thinned)  # of that, rows are rounding alone
        )
        columns = [c for c in expected if "_band_" not in c]  # drawn from a covariance that rounding turns where it is degenerate
        assert list(found) == list(expected)
        pd.testing.assert_frame_equal(found[columns], expected[columns], atol=1e-4, rtol=1e-3, check_dtype=False)


@pytest.mark.parametrize("name", SCRIPTS)
def test_an_interrupted_run_of_some_layers_goes_on(name: str, tiny_folder: Path, manifest: Path, tmp_path: Path) -> None:
    start(name, tiny_folder, manifest, tmp_path, "--layers", "0:4:3")
    rows, record = tmp_path / ROWS[name], tmp_path / "run.json"
    text = rows.read_text()
    rows.write_text(text[: len(text) // 2])
    record.write_text(record.read_text().replace('"finished": true', '"finished": false'))
    start(name, tiny_folder, manifest, tmp_path, "--layers", "0", "3")  # the same layers, told otherwise
    assert len(rows.read_text()) == pytest.approx(len(text), abs=200)
    assert set(rows_of(tmp_path, name).layer) == {0, 3, LAYERS}
    with pytest.raises(InputError, match=r"other settings: layers \(\[0, 3\] there, null now\)"):
        start(name, tiny_folder, manifest, tmp_path)


def test_layers_that_are_none_are_refused_in_one_line(
    tiny_folder: Path, manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(InputError, match="--layers 9: the model has 4 blocks, so layers are 0 to 4"):
        start("logit_lens", tiny_folder, manifest, tmp_path / "out", "--layers", "0:9:3")
    assert not (tmp_path / "out").exists()
    for text in ("x", "4:0", "0:4:0", "0:4:1:1", "", "0:", "0:99999999999", "1.5"):
        with pytest.raises(SystemExit):
            start("logit_lens", tiny_folder, manifest, tmp_path / "out", "--layers", text)
        last = capsys.readouterr().err.splitlines()[-1]
        assert last.endswith(f"argument --layers: invalid layer, or first:last:step value: {text!r}"), last


def test_a_crossing_lies_on_the_line_between_listed_layers_wherever_they_are() -> None:
    """Curves that are straight between the listed layers cross at the same place, whichever layers between are listed too."""
    rng, all_layers = np.random.default_rng(0), np.arange(21)
    ends = np.stack([rng.normal(height, 0.4, 40) for height in (-1.0, -1.0, 0.5, 1.0)], axis=1)
    listed = [0, 3, 11, 20]
    curves = np.array([np.interp(all_layers, listed, unit) for unit in ends])
    design = Design({"texts": memberships([str(i) for i in range(40)])})
    whole = crossing(estimate(curves[:, None], design), all_layers, seed=0)
    some = crossing(estimate(curves[:, None][..., listed], design), listed, seed=0)
    assert 7 < whole.place < 9.5 and some.place == pytest.approx(whole.place, abs=0.05)
    assert (some.low, some.high) == pytest.approx((whole.low, whole.high), abs=1.5)  # bands over fewer layers are narrower
    assert listed[some.shown] == 11 and whole.shown <= 11


def test_what_is_said_names_the_listed_layers(tiny_folder: Path, manifest: Path, tmp_path: Path) -> None:
    start("activation_patching", tiny_folder, manifest, tmp_path / "patching")
    rows = rows_of(tmp_path / "patching", "activation_patching")
    for layers, said in (((0, 1, 2, 3, 4), "l = 1 to 3"), ((0, 1, 3, 4), "the 2 listed layers from l = 1 to 3")):
        facts = patching_facts(patch_tables(rows[rows.layer.isin(layers)], seed=0))
        assert facts["prosody"]["flips"].row == f"transfer.csv, mean of {said}"
    start("logit_lens", tiny_folder, manifest, tmp_path / "lens", "--layers", "2")
    facts = lens_facts(lens_tables(rows_of(tmp_path / "lens", "logit_lens"), seed=0))
    assert facts["crossing"].row == "decision_layer.csv, l = 2 to 4" and lens_statements(facts)
