"""`--layers`: rows at some layers are those of the whole run, and what is said of them is said of these layers alone."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from activation_patching.span.tables import tables_of
from common.errors import InputError
from logit_lens.tables import lens_tables
from tests.helpers.runs import SCRIPTS, interrupt, rows_of, start
from tests.tiny_models.tiny import LAYERS

LISTED = (0, 1, LAYERS)  # of 0 to 4: unevenly spaced


@pytest.mark.parametrize("name", SCRIPTS)
def test_rows_at_listed_layers_are_those_of_the_whole_run_and_so_are_their_statistics(
    name: str, finished: dict[str, Path], tiny_folder: Path, manifest: Path, tmp_path: Path
) -> None:
    start(name, tiny_folder, manifest, tmp_path, "--layers", "1")
    whole, some = (rows_of(out, name) for out in (finished[name], tmp_path))
    thinned = whole[whole.layer.isin(LISTED)].reset_index(drop=True)
    pd.testing.assert_frame_equal(some, thinned, atol=2e-5)  # batches of other sizes round otherwise
    tables = (lens_tables if name == "logit_lens" else tables_of)(thinned)
    for table, expected in tables.items():
        found = pd.read_csv(tmp_path / f"{table}.csv", keep_default_na=False, na_values=[""])
        assert set(found.pop("mark")) == {"labels are not what this model says"}  # random weights: known by reading the record
        assert list(found) == list(expected)
        pd.testing.assert_frame_equal(found, expected.replace("", np.nan), atol=1e-4, rtol=1e-3, check_dtype=False)


@pytest.mark.parametrize("name", SCRIPTS)
def test_an_interrupted_run_of_some_layers_goes_on(name: str, tiny_folder: Path, manifest: Path, tmp_path: Path) -> None:
    start(name, tiny_folder, manifest, tmp_path, "--layers", "0:4:3")
    whole = rows_of(tmp_path, name)
    interrupt(tmp_path, name)
    start(name, tiny_folder, manifest, tmp_path, "--layers", "0", "3")  # the same layers, told otherwise
    assert len(rows_of(tmp_path, name)) == len(whole)
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
