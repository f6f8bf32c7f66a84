"""Memory holds what is used: tails of all clips, caches until their turn as donors is over; and free means free to the job."""

from collections import Counter
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from transformers.cache_utils import DynamicLayer

from activation_patching.span import patch
from common.compute.activation_cache import ActivationCache
from common.compute.memory import cache_bytes, free_memory
from common.tracing.trace import Trace, record
from tests.helpers.runs import start

GB = 1e9


def trace_of_7b() -> Trace:
    """Return a trace without memory of 30 s in Qwen2-Audio-7B's shape: 750 audio tokens, 32 blocks, 32 heads x 128, bfloat16."""
    place = {"dtype": torch.bfloat16, "device": "meta"}

    def layer() -> DynamicLayer:
        kept = DynamicLayer()
        kept.keys, kept.values = (torch.empty(1, 32, 18 + 750, 128, **place) for _ in range(2))
        return kept

    return Trace(
        torch.empty(33, 1, 28, 4096, **place),
        tuple(layer() for _ in range(32)),
        torch.empty(1, 28, device="meta"),
        768,
        tuple(range(33)),
    )


@pytest.mark.parametrize("gigabytes", [16, 40])
def test_two_thousand_recipients_of_a_7b_at_30_s(gigabytes: int) -> None:
    """Each clip is recorded once, and once more as a donor where its keys had to go; the budget is never passed."""
    trace, clips, rng = trace_of_7b(), range(2000), np.random.default_rng(0)
    assert trace.nbytes == pytest.approx(0.404 * GB, rel=0.03) and trace.recipient().nbytes == pytest.approx(7.6e6, rel=0.03)
    groups = {donor: rng.choice(2000, size=5, replace=False) for donor in clips}  # 10,000 pairs
    made, peak = Counter[int](), 0.0
    kept: ActivationCache[int, Trace] = ActivationCache(
        lambda clip: made.update([clip]) or trace,
        light=Trace.recipient,
        store=lambda t: t,
        size=lambda t: t.nbytes,
        turns=groups,
        budget=cache_bytes(gigabytes),
    )
    for donor, recipients in groups.items():
        assert kept.whole(donor) is trace
        peak = max(peak, kept.bytes)
        for recipient in recipients:
            assert kept.light(recipient).cache == ()
            peak = max(peak, kept.bytes)
    assert peak <= gigabytes * GB and max(made.values()) <= 2 and set(made) == set(clips)
    assert made.total() < (3600 if gigabytes == 16 else 3400)  # a clip that was a donor first is not recorded again


def test_what_is_needed_soonest_is_kept_and_what_has_served_goes() -> None:
    made: list[str] = []
    kept: ActivationCache[str, str] = ActivationCache(
        lambda item: made.append(item) or item * 4, light=lambda r: r[:1], store=lambda r: r, size=len, turns="abcd", budget=9
    )
    assert [kept.light(i) for i in "dcb"] == ["d", "c", "b"]  # of their wholes only one fits beside: b, the soonest
    assert kept.bytes == 7 and kept.whole("a") == "aaaa" and kept.bytes == 8
    assert kept.whole("b") == "bbbb" and made == list("dcba") and kept.bytes == 4
    assert kept.whole("c") == "cccc" and made == list("dcbac")
    assert [kept.light(i) for i in "abcd"] == list("abcd") and made == list("dcbac")


def test_recordings_of_a_run(tiny_folder: Path, manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def recordings(gigabytes: float) -> tuple[Counter[str], int]:
        """Return how often each clip is recorded, and the bytes of all tails."""
        recorded, tails = Counter[str](), dict[str, int]()

        def counting(*asked: object) -> object:
            trace, logits = record(*asked)
            recorded[name := str(trace.tail.sum().item())] += 1
            tails[name] = trace.recipient().nbytes
            return trace, logits

        monkeypatch.setattr(patch, "record", counting)
        more = ("--cache-gb", str(gigabytes), "--max-pairs", "30")
        start("activation_patching", tiny_folder, manifest, tmp_path / str(gigabytes), *more)
        return recorded, sum(tails.values())

    roomy, tails = recordings(1)
    assert set(roomy.values()) == {1} and len(roomy) > 40
    tight, _ = recordings((tails + 200_000) / GB)  # all tails, the caches of two clips
    assert set(tight) == set(roomy) and max(tight.values()) == 2 and tight.total() < 2 * len(roomy)


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


def test_free_memory_is_what_the_job_may_take(tmp_path: Path) -> None:
    free = psutil.virtual_memory().available
    assert free_memory(tmp_path) == pytest.approx(free, rel=0.2)  # no groups here
    groups = tmp_path / "sys" / "fs" / "cgroup"

    write(tmp_path / "proc" / "self", cgroup="0::/job_7/step_0\n")  # version 2, as under Slurm: the limit is the job's
    write(groups / "job_7", memory__max="3000000", memory__current="1200000", memory__stat="anon 1\ninactive_file 200000\n")
    write(groups / "job_7" / "step_0", memory__max="max", memory__current="5", memory__stat="inactive_file 0\n")
    assert free_memory(tmp_path) == 2_000_000

    write(tmp_path / "proc" / "self", cgroup="9:cpu:/\n4:memory,hugetlb:/docker/ab\n")  # version 1, seen from inside a container
    v1 = {"memory__limit_in_bytes": "900000", "memory__usage_in_bytes": "500000", "memory__stat": "total_inactive_file 100000\n"}
    write(groups / "memory", **v1)
    assert free_memory(tmp_path) == 500_000 and cache_bytes(2) == 2 * GB
    write(groups / "memory", memory__limit_in_bytes=str(2**63 - 4096))
    assert free_memory(tmp_path) == pytest.approx(free, rel=0.2)
    write(groups / "memory", memory__limit_in_bytes="300000")
    assert free_memory(tmp_path) == 0
