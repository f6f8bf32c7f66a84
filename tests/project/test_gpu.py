"""`make gpu` is right the first time: all of it is rehearsed on the CPU, and made to fail on purpose."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import tests.gpu.__main__ as command
from common.errors import InputError
from tests.bench.measure import operations
from tests.gpu import loops, profile, right, speed, wheels
from tests.gpu.__main__ import screen
from tests.gpu.runner import AGAIN, PARTS, Part, _ended, read, records, run_part
from tests.gpu.speed import model_of
from tests.gpu.worker import keep_setting, setting, work

FAULTS = Part("gpu_faults", "What goes wrong?", limit=60, package="tests.helpers")


def states(out: Path, part: str) -> dict[str, str]:
    return {case: record["state"] for case, record in records(read(out), part).items()}


@pytest.mark.slow
def test_the_rehearsal_runs_every_part(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As a user types it, but for the cases that need a GPU's size."""
    assert command.main(["--small", "--out", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "REHEARSAL" in shown and "  ! " not in shown.replace("  ! nnsight, 3 s: skipped: nnsight is not installed", "")
    for part in PARTS:
        assert f"{part.question} {part.name}: " in shown and set(states(tmp_path, part.name).values()) == {"done"}
        assert (tmp_path / f"{part.name}.log").stat().st_size > 0
    figures = {case: r["figures"] for part in PARTS for case, r in records(read(tmp_path), part.name).items()}
    assert figures["Qwen2.5-Omni-3B, 3 s"]["patched at all layers, s a pair"] > 0
    assert figures["loop of hooks, 3 s"]["largest difference of two logits"] < 1e-4
    assert len(figures[profile.PATCHING]["rows"]) == 10
    assert len(shown.splitlines()) < 60, "it is one screen"


@pytest.mark.slow
def test_what_goes_wrong_is_told_and_the_rest_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_part(FAULTS, tmp_path, start="first", small=True)
    found = records(read(tmp_path), FAULTS.name)
    told = {case: (r["state"], r.get("error", "")) for case, r in found.items()}
    assert told == {
        "raises": ("failed", "ValueError: a family that raises"),
        "memory": ("out of memory", "OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB."),
        "killed": ("cut", "its process ended with code -9"),
        "fine": ("done", ""),
    }
    assert "in measure" in (tmp_path / "gpu_faults.log").read_text(), "the log has where it was raised"
    monkeypatch.setenv("FAULTS", "off")
    run_part(FAULTS, tmp_path, start="second", small=True)
    assert set(states(tmp_path, FAULTS.name).values()) == {"done"}
    assert records(read(tmp_path), FAULTS.name)["fine"] == found["fine"], "what was done is not measured again"


def test_a_part_that_hangs_is_stopped_at_its_limit() -> None:
    asleep = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    assert _ended(asleep, 0.1) is None and asleep.poll() is not None


@pytest.mark.slow
def test_a_part_that_cannot_start_is_told_and_the_next_one_starts(tmp_path: Path) -> None:
    run_part(Part("not_there", "?", limit=60, package="tests.helpers"), tmp_path, start="first", small=True)
    assert "No module named 'tests.helpers.not_there'" in records(read(tmp_path), "not_there")["start"]["error"]


def test_a_family_that_raises_leaves_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(folder: Path) -> Path:
        raise RuntimeError("no such family")

    monkeypatch.setitem(right.ALL_FAMILIES, "broken", broken)
    monkeypatch.setitem(right.NEEDS, "glm_asr", ("a_package_that_nobody_has",))
    cases = ["broken float32 default", "glm_asr float32 default", "qwen2_audio float32 default"]
    assert work("right", cases, lambda case: right.measure(case, small=True), tmp_path, start="first") == 0
    found = records(read(tmp_path), "right")
    assert states(tmp_path, "right") == dict(zip(cases, ("failed", "done", "done")))
    shown = screen(read(tmp_path))
    assert "! broken float32 default: failed: RuntimeError: no such family" in shown
    assert "! glm_asr float32 default: skipped: needs a_package_that_nobody_has" in shown
    assert found[cases[2]]["figures"]["engine"] == "splice" and "1 of 3 cases measured" in shown


def test_more_pairs_than_the_memory_holds_are_left_out_of_the_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    real = speed.splice

    def splice(lm: Any, donor: Any, recipients: Any, tokens: Any) -> torch.Tensor:
        if len(recipients) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return real(lm, donor, recipients, tokens)

    monkeypatch.setattr(speed, "splice", splice)
    figures = speed.times(model_of("Qwen2-Audio-7B", small=True), seconds=1, rounds=1, usual=2)
    by_number = figures["s a pair, by pairs at once"]
    assert by_number[1] > 0 and by_number[2] > 0 and by_number[8] is None
    assert figures["patched at all layers, s a pair"] == by_number[2]


@pytest.mark.parametrize(("part", "maker"), [(speed, "model_of"), (right, "opened"), (profile, "model_of"), (loops, "model_of")])
def test_memory_that_runs_out_in_any_part_is_told(part: Any, maker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(*subject: Any, **options: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(part, maker, no_memory)
    name, cases = part.__name__.rpartition(".")[2], part.cases(small=True)
    for number in range(1, len(cases) + 1):  # each in a process of its own, as the runner starts them
        work(name, cases, lambda case: part.measure(case, small=True), tmp_path, start="first")
        told = list(states(tmp_path, name).values())
        if name != "loops" or number < 3:  # nnsight is skipped where it is not installed
            assert told[:number] == ["out of memory"] * number and told[number:] == ["not reached"] * (len(cases) - number)
    assert f"! {cases[0]}" in screen(read(tmp_path)) and "out of memory: OutOfMemoryError: CUDA out of memory." in screen(
        read(tmp_path)
    )


def test_an_error_of_the_gpu_asks_for_a_fresh_process(tmp_path: Path) -> None:
    def measure(case: str) -> dict[str, Any]:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    assert work("right", ["one", "two"], measure, tmp_path, start="first") == AGAIN
    assert states(tmp_path, "right") == {"one": "failed", "two": "not reached"}


def test_figures_of_two_settings_are_not_mixed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keep_setting(tmp_path, setting(small=True))
    keep_setting(tmp_path, setting(small=True))
    with pytest.raises(InputError, match="torch: .* there, 2.11.0 now.*give another --out"):
        keep_setting(tmp_path, setting(small=True) | {"torch": "2.11.0"})


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_command_says_so_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--only", "loops", "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err == "tests.gpu: no GPU that torch can use; --small rehearses the run without one\n"


def event(cat: str, name: str, ts: float, dur: float, **args: Any) -> dict[str, Any]:
    return {"ph": "X", "cat": cat, "name": name, "ts": ts, "dur": dur, "args": {k.replace("_", " "): v for k, v in args.items()}}


def test_a_trace_of_a_gpu_is_read() -> None:
    """The form is that of torch's own export; the names are those of kernels on Ampere and Hopper."""
    keys, tail = [222, 2, 768, 128], [222, 2, 28, 128]
    events = [
        event("cpu_op", "aten::mm", 0, 5, External_id=1, Input_Dims=[[6216, 2048], [2048, 2048]]),
        event("cuda_runtime", "cudaLaunchKernelExC", 1, 1, correlation=11, External_id=1),
        event("kernel", "nvjet_tst_128x256_64x4_1x2_h_bz_coopA_NNT", 10, 100, correlation=11),  # no external id of its own
        event("cpu_op", "aten::copy_", 5, 5, External_id=2, Input_Dims=[[222, 2, 8, 768, 128], [222, 2, 8, 768, 128], []]),
        event("cuda_runtime", "cudaLaunchKernel", 6, 1, correlation=12, External_id=2),
        event("kernel", "void at::native::elementwise_kernel<128, 4, direct_copy>", 110, 50, External_id=2, correlation=12),
        event("cpu_op", "aten::cat", 11, 5, External_id=3, Input_Dims=[[keys, tail], []]),
        event("kernel", "void at::native::CatArrayBatchedCopy_aligned16_contig", 160, 30, External_id=3, correlation=13),
        event("kernel", "fmha_cutlassF_bf16_aligned_64x128_rf_sm80", 200, 40, External_id=4, correlation=14),
        event("kernel", "void at::native::vectorized_elementwise_kernel<4, silu>", 230, 20, External_id=5, correlation=15),
        event("gpu_memcpy", "Memcpy HtoD (Pinned -> Device)", 260, 10, External_id=6, correlation=16, bytes=2_000_000),
        {"ph": "f", "cat": "ac2g", "name": "ac2g", "ts": 1},
        {"ph": "M", "name": "process_name", "args": {"name": "python"}},
    ]
    works, launches = profile.works_of(events, of=profile.ON_GPU)
    kinds = {work.kind: round(1e6 * work.seconds) for work in works}
    assert kinds == {"products": 100, "keys expanded": 50, "keys joined": 30, "attention": 40, "others": 20, "host": 10}
    assert launches == 2 and works[-1].bytes == 2_000_000
    busy, span = profile.occupied(works)
    assert (round(1e6 * busy), round(1e6 * span)) == (240, 260)  # 10 idle before 200, 10 before 260; 230 to 240 overlaps


def test_a_trace_without_a_kernel_is_no_result() -> None:
    with pytest.raises(RuntimeError, match="the profiler saw no kernel"):
        profile.works_of([event("cpu_op", "aten::mm", 0, 5, External_id=1)], of=profile.ON_GPU)


def test_operations_of_shared_keys_are_counted() -> None:
    """Which the formula of torch 2.11 takes for a mistake."""
    q, k = torch.randn(3, 8, 28, 16), torch.randn(3, 2, 99, 16)
    products, attention = operations(lambda: torch.nn.functional.scaled_dot_product_attention(q, k, k, enable_gqa=True) @ q.mT)
    assert attention == 2 * 2 * 3 * 8 * 28 * 99 * 16 and products == 2 * 3 * 8 * 28 * 28 * 16


def test_the_trace_of_this_torch_names_the_copies_that_are_told_apart() -> None:
    keys, tail = torch.randn(1, 2, 71, 16).expand(3, -1, -1, -1), torch.randn(3, 2, 28, 16)

    def expand() -> torch.Tensor:
        joined = torch.cat([keys, tail], dim=-2)
        return joined[:, :, None].expand(3, 2, 4, 99, 16).reshape(3, 8, 99, 16)  # as transformers' repeat_kv does it

    kinds = [work.kind for work in profile.profiled(expand)[0]]
    assert kinds.count("keys joined") == 1 and kinds.count("keys expanded") == 1


def test_all_parts_together_take_less_than_five_minutes() -> None:
    assert sum(part.limit for part in PARTS) < 300


def pins(path: Path) -> dict[str, str]:
    lines = (line.partition("#")[0].strip() for line in path.read_text().splitlines())
    return dict(line.split("==") for line in lines if "==" in line)


def test_the_wheels_are_those_of_the_tool_and_the_tree_leaves_them_room() -> None:
    """`make gpu-wheels` measures both; the wheels take 39 of the 60 MiB."""
    wanted = pins(wheels.REQUIREMENTS)
    for file in ("requirements.txt", "requirements-families.txt"):
        for name, version in pins(wheels.ROOT / file).items():
            assert wanted.get(name, version) == version
    assert "torch" not in wanted
    assert wheels.tree_bytes() < 21 * 2**20
