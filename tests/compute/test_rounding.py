"""Noise is judged: a pair that the fast way renders badly is patched again by rerun; a fault stops the run; a nan is one line."""

import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from activation_patching.span import patch
from common.compute import session
from common.compute.rounding import check_share, donors_again, noise_of
from common.errors import CheckFailed
from common.patching.splice import splice
from common.run.command_line import main_of
from common.tracing.hooks import hooks
from common.tracing.trace import Trace
from tests.helpers.runs import ROWS, interrupt, rows_of, start


def plant(monkeypatch: pytest.MonkeyPatch, is_odd: Callable[[Trace], bool], noise: float = 3.0) -> None:
    """Let block 2 add noise in the passes of the donors that `is_odd` picks."""

    def noisy(lm: Any, donor: Trace, recipients: list[Trace], tokens: Any) -> torch.Tensor:
        draw = torch.Generator().manual_seed(0)
        hook = lambda module, args, h: h + noise * torch.randn(h.shape, generator=draw)  # noqa: E731
        with hooks(lm.blocks[2].register_forward_hook(hook)) if is_odd(donor) else nullcontext():
            return splice(lm, donor, recipients, tokens)

    monkeypatch.setattr(patch, "splice", noisy)


def first_donor_only() -> Callable[[Trace], bool]:
    seen: list[torch.Tensor] = []

    def is_odd(donor: Trace) -> bool:
        seen.append(donor.tail[-1])
        return torch.equal(seen[0], donor.tail[-1])

    return is_odd


@pytest.mark.parametrize("interrupted", [False, True])
def test_an_outlier_is_patched_again_marked_and_counted(
    interrupted: bool,
    finished: dict[str, Path],
    tiny_folder: Path,
    manifest: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plant(monkeypatch, first_donor_only())
    start("activation_patching", tiny_folder, manifest, tmp_path)
    if interrupted:  # behind the outlier's rows
        interrupt(tmp_path, "activation_patching")
        monkeypatch.setattr(patch, "splice", splice)
        start("activation_patching", tiny_folder, manifest, tmp_path)
    quiet, odd = rows_of(finished["activation_patching"]), rows_of(tmp_path)
    again = odd[odd.engine == "rerun"]
    assert again.donor_id.nunique() == 1 and set(odd.engine) == {"splice", "rerun"} and set(quiet.engine) == {"splice"}
    assert (odd.donor_id == again.donor_id.iloc[0]).sum() == len(again) > 0
    numbers = [c for c in odd if c.startswith("logit_")]
    np.testing.assert_allclose(quiet[numbers], odd[numbers], atol=1e-4)
    assert again.own_run_difference.dropna().max() < 1e-4
    record = json.loads((tmp_path / "run.json").read_text())
    pairs = again.pair_id.nunique()
    assert record["counts"]["pairs patched again by rerun"] == pairs
    assert f"{pairs} of {odd.pair_id.nunique()} pairs were too noisy by splice" in record["warnings"][-1]


def test_a_fault_stops_every_start_and_the_run_goes_on_when_it_is_mended(
    finished: dict[str, Path], tiny_folder: Path, manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch, lambda donor: True)
    for _ in range(2):  # no number of starts gets past it
        with pytest.raises(CheckFailed, match=r"of 60 pairs, more than 1%, are not what splice must give .*row 0 - donor is"):
            start("activation_patching", tiny_folder, manifest, tmp_path / "broken")
        assert not json.loads((tmp_path / "broken" / "run.json").read_text())["finished"]
    monkeypatch.setattr(patch, "splice", splice)
    start("activation_patching", tiny_folder, manifest, tmp_path / "broken")
    quiet, mended = rows_of(finished["activation_patching"]), rows_of(tmp_path / "broken")
    pd.testing.assert_frame_equal(quiet.drop(columns="engine"), mended.drop(columns="engine"), atol=1e-4)


def test_pairs_patched_again_are_counted_over_all_starts(tmp_path: Path) -> None:
    rows = pd.DataFrame({"pair_id": list("abcdef"), "donor_id": ["007", *"vwxyz"], "layer": 0, "tied": 0, "engine": "splice"})
    assert noise_of(rows, engine="splice") == ({"tied answers": 0, "pairs patched again by rerun": 0}, [])
    rows.loc[0, "engine"] = "rerun"
    assert noise_of(rows, engine="splice")[0]["pairs patched again by rerun"] == 1
    rows.to_csv(tmp_path / "patches.csv")
    assert donors_again(tmp_path / "patches.csv", "splice") == ["007"] and donors_again(tmp_path / "none.csv", "splice") == []


def test_one_percent_or_one_donor() -> None:
    check_share(["a"] * 30, 40, "splice", "")
    check_share(["a", "b"], 200, "splice", "")
    with pytest.raises(CheckFailed):
        check_share(["a", "b", "b"], 200, "splice", "")


def test_what_a_rerun_does_no_better_stops_the_run(
    tiny_folder: Path, manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch, first_donor_only())
    rerun = patch.rerun
    monkeypatch.setattr(patch, "rerun", lambda *given: rerun(*given) + 1)
    with pytest.raises(CheckFailed, match="and a rerun does no better: row 0 - donor is 1"):
        start("activation_patching", tiny_folder, manifest, tmp_path)


@pytest.mark.parametrize("name", ROWS)
def test_nan_is_one_line_and_what_is_there_is_kept(
    name: str,
    finished: dict[str, Path],
    tiny_folder: Path,
    manifest: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    load = session.load_model

    def failing(*given: Any, **options: Any) -> Any:
        lm, left = load(*given, **options), [45 if name == "logit_lens" else 62]

        def break_down(module: Any, args: Any, h: torch.Tensor) -> torch.Tensor:
            left[0] -= 1
            return h if left[0] > 0 else h * torch.nan

        lm.blocks[1].register_forward_hook(break_down)
        return lm

    monkeypatch.setattr(session, "load_model", failing)
    with pytest.raises(SystemExit) as stop:
        main_of(lambda _: start(name, tiny_folder, manifest, tmp_path / "cut"))
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert stop.value.code == 3 and "the model's logits are not all finite numbers" in line
    whole, kept = rows_of(finished[name], name), rows_of(tmp_path / "cut", name)
    assert 0 < len(kept) < len(whole) and kept.filter(like="logit_").notna().all(axis=None)
    monkeypatch.setattr(session, "load_model", load)
    start(name, tiny_folder, manifest, tmp_path / "cut")
    pd.testing.assert_frame_equal(whole, rows_of(tmp_path / "cut", name), atol=2e-5)
