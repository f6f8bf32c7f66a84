"""What `--plan` tells, held against the run that it is of."""

import re
from pathlib import Path

import pytest
import torch

import activation_patching.run
import logit_lens.run
from activation_patching import plan
from activation_patching.span import patch
from common.compute.weightless import weightless_model
from common.errors import InputError
from common.model import ModelChoice
from common.model.lm import AudioLM
from tests.tiny_models.tiny import LAYERS
from tests.tiny_models.unlike import HYBRID


def test_one_block_of_each_kind_is_there_and_weights_are_those_of_all(lm: AudioLM, tiny_folder: Path) -> None:
    model = ModelChoice(str(tiny_folder), device="cpu")
    weightless = weightless_model(model, free=lambda _: 10**12)
    assert weightless.weights == sum(p.numel() * 4 for p in lm.model.parameters())
    one = sum(p.numel() * 4 for p in lm.blocks[0].parameters())
    assert weightless.held == weightless.weights - (LAYERS - 1) * one and set(weightless.stand_in) == {weightless.stand_in[0]}
    there = [i for i, block in enumerate(weightless.lm.blocks) if not next(block.parameters()).is_meta]
    assert there == [weightless.stand_in[0]]
    whole = weightless_model(model, free=lambda _: 10**12, whole=True)
    assert (
        not any(p.is_meta for p in whole.lm.model.parameters())
        and whole.held < weightless.held
        and whole.weights == weightless.weights
    )
    with pytest.raises(InputError, match="one block of each kind and what is around them take .* GB; cpu has less"):
        weightless_model(model, free=lambda _: 10)


def test_time_is_that_of_all_blocks(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that goes on by 3 s in the block that is there, and by 5 s around it."""
    weightless = weightless_model(ModelChoice(str(tiny_folder), device="cpu"), free=lambda _: 10**12)
    now = [0.0]
    monkeypatch.setattr("common.compute.weightless._now", lambda _: now[0])
    block = weightless.lm.blocks[weightless.stand_in[0]]

    def work() -> None:
        now[0] += 5
        block(torch.zeros(1, 1, 32), position_embeddings=(torch.ones(1, 1, 8), torch.zeros(1, 1, 8)))

    forward = block.forward
    block.forward = lambda *args, **more: (now.append(now.pop() + 3), forward(*args, **more))[1]
    assert weightless.seconds(work) == 5 + 3 * LAYERS


def assert_told(told: str, file: Path) -> None:
    """Assert that a plan tells the number of the rows in a file, and its size."""
    rows = file.read_bytes()
    count, size = re.search(r"rows: (\d+) of \d+ layers, ([\d.]+) MB", told).groups()  # type: ignore[union-attr]
    assert int(count) == rows.count(b"\n") - 1 and float(size) == pytest.approx(len(rows) / 1e6, abs=0.06)


@pytest.mark.parametrize("script", ["lens", "patching"])
def test_rows_disk_and_recordings_are_those_of_the_run(
    script: str,
    tiny_folder: Path,
    manifest: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    main, few, name = {
        "lens": (logit_lens.run.main, ["--limit", "12"], "lens.csv"),
        "patching": (activation_patching.run.main, ["--max-pairs", "20"], "patches.csv"),
    }[script]
    for run in (logit_lens.run, activation_patching.run):
        monkeypatch.setattr(run, "draw", lambda *_: None)
    more = ["--model", str(tiny_folder), "--data", str(manifest), "--device", "cpu", *few, "--out", str(tmp_path / "out")]
    planned: list[tuple[int, int]] = []
    ask_for = plan._recordings
    monkeypatch.setattr(plan, "_recordings", lambda *args, **more: planned.append(ask_for(*args, **more)) or planned[-1])  # type: ignore[func-returns-value]
    main([*more, "--plan"])
    told = capsys.readouterr().out
    assert not (tmp_path / "out").exists()
    recorded: list[int] = []
    record = patch.record
    monkeypatch.setattr(patch, "record", lambda *args: (recorded.append(1), record(*args))[1])
    main(more)
    assert_told(told, tmp_path / "out" / name)
    assert [made for made, _ in planned] == ([len(recorded)] if script == "patching" else [])


@pytest.mark.parametrize(
    "more, name, beside",
    [
        (["knockout", "--limit", "3"], "knockout.csv", ""),
        (["components", "--max-pairs", "2"], "components.csv", "; without heads that are patched together"),
        (
            ["scale", "--at", "last", "--limit", "2", "--generate", "1"],
            "scaled.csv",
            "; without the fit of the subspaces, without free text",
        ),
    ],
)
def test_other_interventions_are_planned_with_their_own_rows(
    more: list[str],
    name: str,
    beside: str,
    tiny_folder: Path,
    manifest: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(activation_patching.run, "draw", lambda *_: None)
    data = ["--model", str(tiny_folder), "--data", str(manifest), "--device", "cpu"]
    asked = [*data, "--layers", "0", "2", "--intervention", *more]
    activation_patching.run.main([*asked, "--plan", "--out", str(tmp_path / "none")])
    told = capsys.readouterr().out
    assert not (tmp_path / "none").exists() and told.rstrip().endswith(f"with made-up weights{beside}")
    activation_patching.run.main([*asked, "--out", str(tmp_path / "out")])
    assert_told(told, tmp_path / "out" / name)


def test_a_plan_refuses_what_the_run_would(tmp_path: Path, manifest: Path) -> None:
    asked = ["--model", str(HYBRID["hybrid"](tmp_path / "model")), "--data", str(manifest), "--device", "cpu", "--plan"]
    with pytest.raises(InputError, match="--intervention knockout: block 0 keeps more than keys and values"):
        activation_patching.run.main([*asked, "--intervention", "knockout"])
