"""Both scripts as a user starts them, on a tiny model: files, resume, listed layers, and every wrong input."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file

import report.build
from activation_patching.span import patch
from activation_patching.span import rows as patching
from activation_patching.span.tables import tables_of
from common.clips.manifest import COLUMNS
from common.compute import session
from common.errors import CheckFailed, InputError, UnknownBlock
from common.patching.splice import splice
from common.run.command_line import main_of
from logit_lens.tables import lens_tables
from tests.helpers.runs import ROOT, ROWS, SCRIPTS, interrupt, rows_of, start
from tests.tiny_models.tiny import LAYERS, save_clips, save_manifest, save_tiny_model

FILES = {
    "logit_lens": {
        *("layers.csv", "congruent.csv", "labels.csv", "crossover.csv"),
        *("margin_curve_conflict.png", "winrate_curve_conflict.png"),
    },
    "activation_patching": {
        *("layers.csv", "effects.csv", "summary.csv", "beyond_label.csv"),
        *(f"{f}_curve_{k}.png" for k in ("semantic", "prosody") for f in ("flip_rate", "delta_logit")),
    },
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_run_writes_its_files(
    name: str, tiny_folder: Path, manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    start(name, tiny_folder, manifest, tmp_path)
    assert {f.name for f in tmp_path.iterdir()} == {ROWS[name], "run.json", "files.json", *FILES[name]}
    rows, layers = pd.read_csv(tmp_path / ROWS[name]), pd.read_csv(tmp_path / "layers.csv")
    units = 24 if name == "logit_lens" else 60  # each prosody pair has a donor of the same text besides
    assert len(rows) == units * (LAYERS + 1) and set(rows.layer) == set(range(LAYERS + 1))
    if name == "logit_lens":
        np.testing.assert_allclose(layers[["win_semantic", "win_prosody", "win_other"]].sum(axis=1), 1, atol=2e-6)
        assert (rows.semantic_label != rows.prosody_label)[: 12 * (LAYERS + 1)].all() and layers.n.eq(12).all()
    else:
        ends = rows[rows.layer.isin((0, LAYERS))]
        assert ends.own_run_difference.max() < 1e-4 and ends.own_run_difference.notna().all()
        assert rows[rows.layer == 0].delta_logit.abs().max() > 0.1
        assert rows[rows.layer == 0].control.value_counts().to_dict() == {"none": 40, "same_text_donor": 20}
        base, last = (
            rows[rows.layer == LAYERS].filter(regex=f"^{name}_(neutral|happy|sad|angry|surprised)$") for name in ("base", "logit")
        )
        np.testing.assert_array_equal(base, last)
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["finished"] and record["label_tokens"]["sad"] == "sad" and record["identity"]["dtype"] == "float32"
    assert record["identity"]["versions"]["torch"] and record["prompt_text"].startswith("{audio}How does the speaker feel?")
    assert record["self_check"]["lens row L - model"] < 1e-4 and record["self_check"]["label logits in float32 - model"] < 1e-4
    assert rows.tied.sum() == record["counts"]["tied answers"] == 0
    used = {12} if name == "logit_lens" else {len({*rows.recipient_id, *rows.donor_id})}
    assert {record["counts"]["clips"]} == used
    assert record["self_check"]["A - B, for comparison"] > 0.1
    patches_by = {"logit_lens": (None, None), "activation_patching": ("splice", LAYERS)}[name]
    assert (record["engine"], record["blocks_that_keep_what_they_read"]) == patches_by and record["adapters"] == []
    assert ("splice - rerun" in record["self_check"]) == (name == "activation_patching")
    printed = capsys.readouterr().out
    assert ("patches by splice" in printed) == (name == "activation_patching") and "next     python" in printed
    assert set(layers.mark) == {record["mark"]} == {"labels are not what this model says"}
    (warning,) = record["warnings"]
    assert warning in printed and warning.startswith("the label tokens have 0.0") and "would rather say '" in warning


@pytest.mark.parametrize("keep", [-2, 0, 20])  # cut within a line's last field, before its newline, within a line
@pytest.mark.parametrize("name", SCRIPTS)
def test_an_interrupted_run_goes_on_and_ends_the_same(
    name: str, keep: int, finished: dict[str, Path], tiny_folder: Path, manifest: Path, tmp_path: Path
) -> None:
    out = shutil.copytree(finished[name], tmp_path / "cut")
    text = (out / ROWS[name]).read_text()
    interrupt(out, name, at=text.rfind("\n", 0, len(text) // 2) + keep)
    start(name, tiny_folder, manifest, out)
    for file in (ROWS[name], "layers.csv"):
        whole, cut = (pd.read_csv(d / file) for d in (finished[name], out))
        key = [c for c in ("sample_id", "pair_id", "kind", "layer") if c in whole]
        pd.testing.assert_frame_equal(*(t.sort_values(key, ignore_index=True) for t in (whole, cut)), atol=2e-6)


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_finished_run_started_again_computes_nothing_and_keeps_its_record(
    name: str, finished: dict[str, Path], tiny_folder: Path, manifest: Path, tmp_path: Path
) -> None:
    out = shutil.copytree(finished[name], tmp_path / "out")
    start(name, tiny_folder, manifest, out)
    assert {f.name: f.read_bytes() for f in out.iterdir()} == {f.name: f.read_bytes() for f in finished[name].iterdir()}


def test_other_settings_stop_and_nothing_is_touched(
    finished: dict[str, Path], tiny_folder: Path, manifest: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished["logit_lens"], tmp_path, dirs_exist_ok=True)
    before = {f.name: f.read_bytes() for f in tmp_path.iterdir()}
    with pytest.raises(
        InputError,
        match=r"other settings: prompt \(.*\), seed \(0 there, 1 now\); give another --out, or --overwrite",
    ):
        start("logit_lens", tiny_folder, manifest, tmp_path, "--prompt", "voice", "--seed", "1")
    assert {f.name: f.read_bytes() for f in tmp_path.iterdir()} == before
    start("logit_lens", tiny_folder, manifest, tmp_path, "--prompt", "voice", "--seed", "1", "--overwrite")
    assert json.loads((tmp_path / "run.json").read_text())["identity"]["seed"] == 1


def test_a_splice_that_is_wrong_stops_the_run(
    tiny_folder: Path, manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The self-check sees one pair; this fault is in the others, and the controls of every pair find it."""
    monkeypatch.setattr(patch, "splice", lambda lm, donor, recipients, tokens: splice(lm, donor, recipients[::-1], tokens))
    with pytest.raises(CheckFailed, match="row L - recipient is"):
        start("activation_patching", tiny_folder, manifest, tmp_path)


def test_neither_the_size_of_a_pass_nor_of_the_memory_changes_rows(
    finished: dict[str, Path], tiny_folder: Path, manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patching, "MAX_ROWS", 1)
    start("activation_patching", tiny_folder, manifest, tmp_path, "--cache-gb", "0")  # every recording is made again
    pd.testing.assert_frame_equal(rows_of(finished["activation_patching"]), rows_of(tmp_path), atol=2e-5)


def test_a_decoder_of_another_build_is_refused(
    tiny_folder: Path, manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def four_streams(*_: object, **__: object) -> None:
        raise UnknownBlock("a block passes torch.Size([4, 1, 9, 8]) where its states [row, pos, d_model] should be")

    monkeypatch.setattr(session, "self_check", four_streams)
    with pytest.raises(InputError, match=r"--model .*: a block passes .* not supported yet"):
        start("logit_lens", tiny_folder, manifest, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_exit_codes(capsys: pytest.CaptureFixture) -> None:
    for error, code in ((InputError("x"), 2), (CheckFailed("x"), 3), (KeyboardInterrupt(), 130)):

        def fail(argv: list[str] | None, error: BaseException = error) -> None:
            raise error

        with pytest.raises(SystemExit) as stopped:
            main_of(fail)
        assert stopped.value.code == code and len(capsys.readouterr().err.splitlines()) == 1


def test_rows_of_nobody_are_not_taken_over(tiny_folder: Path, manifest: Path, tmp_path: Path) -> None:
    (tmp_path / "lens.csv").write_text("precious\n")
    with pytest.raises(InputError, match="holds files that are not of this program"):
        start("logit_lens", tiny_folder, manifest, tmp_path)
    assert (tmp_path / "lens.csv").read_text() == "precious\n"


def write_wave(path: Path, wave: np.ndarray) -> Path:
    soundfile.write(path, wave, 16_000)
    return path


WRONG = {
    "missing manifest": (("--data", "gone.csv"), "gone.csv: no such manifest"),
    "unknown label": ({"semantic_label": "furious"}, "row 2, column semantic_label: unknown label 'furious'; allowed: neutral"),
    "missing file": ({"audio": "gone.wav"}, "row 2, column audio: no such file"),
    "unreadable audio": ({"audio": "text.wav"}, "text.wav: not readable as audio"),
    "empty audio": ({"audio": "empty.wav"}, "empty.wav: empty"),
    "silent audio": ({"audio": "silent.wav"}, "silent.wav: silent"),
    "long audio": ({"audio": "long.wav"}, "long.wav: longer than the model hears: 2.00 s long; the model hears about 1.0 s"),
    "duplicate id": ({"sample_id": "neutral_0_sad_a"}, "'neutral_0_sad_a' is already in row 2"),
    "no conflict": ("congruent", "no conflict clips"),
    "missing column": ("column", "column text_id is missing"),
    "no such model": (("--model", "gone"), "--model gone: no model folder or hub id"),
    "no audio model": (("--model", "text"), "is not an audio language model"),
    "label tokens": (("--model", "bytes"), "two label words share their first token"),
    "no such prompt": (("--prompt", "gone.txt"), "--prompt gone.txt: neither a readable text file nor one of"),
    "no such device": (("--device", "cuda:9"), "--device cuda:9: not usable here"),
    "broken weights": (("--model", "broken"), "broken: cannot be loaded"),
    "missing weights": (("--model", "partial"), "partial: 2 weights are not in its files, the first is"),
    "negative seed": (("--seed", "-1"), "argument --seed: invalid whole number from 0 to 4294967295 value: '-1'"),
    "limit": (("--limit", "0"), "argument --limit: invalid whole number from 1 on value: '0'"),
}


PROGRAM = "unknown label"


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    """A folder with one clip of each fault, and models that are none."""
    folder = tmp_path_factory.mktemp("wrong")
    save_clips(folder, texts=1, speakers=("a",))
    write_wave(folder / "empty.wav", np.zeros(0))
    write_wave(folder / "silent.wav", np.zeros(16_000))
    write_wave(folder / "long.wav", np.random.default_rng(0).uniform(-0.5, 0.5, 32_000))
    (folder / "text.wav").write_text("not audio")
    (folder / "text").mkdir()
    (folder / "text" / "config.json").write_text('{"model_type": "llama"}')
    save_tiny_model(folder / "bytes", label_tokens=False)
    for name in ("model", "broken", "partial"):
        shutil.copytree(tiny_folder, folder / name)
    (folder / "broken" / "model.safetensors").write_bytes(b"not weights")
    weights = load_file(tiny_folder / "model.safetensors")
    kept = {k: v for k, v in weights.items() if "layers.1.mlp.down_proj" not in k and "layers.2.mlp.down_proj" not in k}
    save_file(kept, folder / "partial" / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_one_line_and_exit_code_2(
    case: str, workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """The two scripts share this path: one case goes through both, as programs, the others through one of them here."""
    change, message = WRONG[case]
    rows = [tuple(r) for r in pd.read_csv(workplace / "manifest.csv", dtype=str).itertuples(index=False)]
    columns = COLUMNS
    if isinstance(change, dict):  # of the manifest's first conflict clip
        rows = [tuple((dict(zip(COLUMNS, rows[1])) | change).values()), *rows[2:]]
    elif change == "congruent":
        rows = [r for r in rows if r[4] == r[5]]
    elif change == "column":
        columns, rows = tuple(c for c in COLUMNS if c != "text_id"), [r[:3] + r[4:] for r in rows]
    data = save_manifest(workplace / f"{case.replace(' ', '_')}.csv", rows, columns)
    out = tmp_path / "out"
    more = change if isinstance(change, tuple) else ()
    asked = ["--model", "model", "--data", str(data), "--out", str(out), *more]
    if case != PROGRAM:
        monkeypatch.chdir(workplace)
        with pytest.raises(SystemExit) as stopped:
            main_of(lambda _: SCRIPTS["logit_lens"](asked))
        ends = [(stopped.value.code, capsys.readouterr().err)]
    else:
        scripts = [str(ROOT / name / "run.py") for name in SCRIPTS]
        offline = {"capture_output": True, "text": True, "cwd": workplace, "env": {**os.environ}}
        done = [subprocess.run([sys.executable, script, *asked], **offline) for script in scripts]
        ends = [(d.returncode, d.stderr) for d in done]
    for code, said in ends:
        last = said.rstrip().splitlines()[-1]
        assert code == 2 and "error: " in last and message in last and "Traceback" not in said
    assert not out.exists()


def test_the_pool_of_all_clips_takes_congruent_ones_too(tiny_folder: Path, manifest: Path, tmp_path: Path) -> None:
    start("activation_patching", tiny_folder, manifest, tmp_path, "--pool", "all", "--max-pairs", "60")
    ids = pd.read_csv(tmp_path / "patches.csv").recipient_id
    assert ids.str.match(r"(\w+?)_\d_\1_").any() and not ids.str.match(r"(\w+?)_\d_\1_").all()
    assert "congruent" not in json.loads((tmp_path / "run.json").read_text())["counts"]["dropped"]


def test_bfloat16_runs_and_keeps_its_noise_in_sight(tiny_folder: Path, manifest: Path, tmp_path: Path) -> None:
    start("activation_patching", tiny_folder, manifest, tmp_path, "--dtype", "bfloat16", "--max-pairs", "4")
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["identity"]["dtype"] == "bfloat16"
    assert max(record["counts"]["controls"].values()) < record["self_check"]["A - B, for comparison"]


def test_running_out_of_gpu_memory_halves_the_rows_and_goes_on(
    tiny_folder: Path, manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    def small(lm: object, donor: object, recipients: list, tokens: object) -> object:
        sizes.append(len(recipients))
        if len(recipients) > 2:
            raise torch.OutOfMemoryError
        return splice(lm, donor, recipients, tokens)

    monkeypatch.setattr(patch, "splice", small)
    many = ("--max-pairs", "60", "--kinds", "semantic")
    start("activation_patching", tiny_folder, manifest, tmp_path / "small", *many)
    monkeypatch.setattr(patch, "splice", splice)
    start("activation_patching", tiny_folder, manifest, tmp_path / "large", *many)
    last = max(i for i, n in enumerate(sizes) if n > 2)  # from there on no pass was too large
    assert 0 <= last < len(sizes) - 10 and sizes[last + 1] <= 2
    pd.testing.assert_frame_equal(rows_of(tmp_path / "large"), rows_of(tmp_path / "small"), atol=2e-5)


def test_out_of_memory_with_one_pair_is_one_line(
    tiny_folder: Path, manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def never(*_: object) -> object:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(patch, "splice", never)
    with pytest.raises(SystemExit) as stop:
        main_of(lambda _: start("activation_patching", tiny_folder, manifest, tmp_path))
    assert stop.value.code == 2 and "out of memory" in capsys.readouterr().err.splitlines()[-1]


def test_alignments_agree_where_spans_are_equally_long_and_differ_where_not(
    tiny_folder: Path, manifest: Path, tmp_path: Path
) -> None:
    aligns = ("splice", "crop", "stretch")
    for align in aligns:
        start("activation_patching", tiny_folder, manifest, tmp_path / align, "--align", align, "--max-pairs", "6")
    splice_, crop, stretch = (rows[rows.control == "none"] for rows in (rows_of(tmp_path / align) for align in aligns))
    assert json.loads((tmp_path / "crop" / "run.json").read_text())["engine"] == "layer_batch"
    logits = [c for c in splice_ if c.startswith("logit_")]
    equal = splice_.kind == "prosody"  # of one text: equally long here
    np.testing.assert_allclose(splice_[equal][logits], crop[equal][logits], atol=2e-4)
    np.testing.assert_allclose(splice_[equal][logits], stretch[equal][logits], atol=2e-4)
    first = ~equal & (splice_.layer == 0)
    assert np.abs(splice_[first][logits] - crop[first][logits]).max().max() > 0.1
    assert np.abs(crop[first][logits] - stretch[first][logits]).max().max() > 0.1
    last = splice_.layer == LAYERS
    np.testing.assert_allclose(splice_[last][logits], stretch[last][logits], atol=2e-4)


def test_no_pairs_and_doubled_kinds(tiny_folder: Path, tmp_path: Path) -> None:
    clips = save_clips(tmp_path / "clips", texts=1, speakers=("a",))
    rows = [tuple(r) for r in pd.read_csv(clips, dtype=str).itertuples(index=False)]
    alone = save_manifest(clips.parent / "alone.csv", [r for r in rows if r[4] != r[5]][:1])
    with pytest.raises(InputError, match="no semantic pairs among 1 clips"):
        start("activation_patching", tiny_folder, alone, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    start("activation_patching", tiny_folder, clips, tmp_path / "out", "--kinds", "semantic", "semantic")
    layers = pd.read_csv(tmp_path / "out" / "layers.csv")
    assert layers[layers.control == "none"].kind.tolist() == ["semantic"] * (LAYERS + 1) and set(layers.kind) == {"semantic"}


def test_one_kind_of_pair_alone_makes_a_report(
    finished: dict[str, Path], tiny_folder: Path, manifest: Path, tmp_path: Path
) -> None:
    """As of a data set whose words have one label."""
    start("activation_patching", tiny_folder, manifest, tmp_path / "patching", "--kinds", "prosody", "--max-pairs", "8")
    runs = ["--lens", str(finished["logit_lens"]), "--patching", str(tmp_path / "patching")]
    report.build.main([*runs, "--out", str(tmp_path / "report"), "--no-audio"])
    for name in ("report.md", "report.zh.md", "report.html"):
        assert (tmp_path / "report" / name).stat().st_size > 1_000


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
