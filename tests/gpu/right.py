"""Is it right there? The rows of the reference model against the CPU's, and every family's self-check on the device.

The rows are made as both scripts make them; tables and figures, which know no device, are left out.
"""

import atexit
import importlib.util
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from activation_patching.span.rows import patch_pairs
from common.clips.manifest import Sample
from common.clips.pairs import Pair
from common.compute.session import Session, open_session
from common.model import ModelChoice
from common.model.prompts import ask
from common.patching import ENGINES
from logit_lens.rows import layers_of
from tests.gpu.runner import ROOT
from tests.tiny_models.families import without_vision_tower
from tests.tiny_models.newer_families import ALL_FAMILIES, NEEDS
from tests.tiny_models.tiny import RATE

REFERENCE = "reference model"
REFERENCE_FOLDER = ROOT / "data" / "reference_model"
TF32 = ", convolutions without TF32"  # which cuDNN takes for float32 by itself
WAYS = (("bfloat16", None), ("float32", None), ("bfloat16", "eager"), ("float32", "eager"))  # dtype, attention
# Where the run is rehearsed: the one is spliced, the other patched by layer batch.
SMALL = [f"{REFERENCE} float32{TF32}", "gemma4_e2b bfloat16 eager"]
# The second as long as the first, as some families need; the third longer.
LENGTHS = {"a": 0.5, "b": 0.5, "c": 0.7}  # seconds

Row = dict[str, Any]


def cases(*, small: bool) -> list[str]:
    reference = [f"{REFERENCE} {way}" for way in ("float32", f"float32{TF32}", "bfloat16")]
    families = [f"{family} {dtype} {attention or 'default'}" for dtype, attention in WAYS for family in ALL_FAMILIES]
    return SMALL if small else reference + families


def measure(case: str, *, small: bool) -> dict[str, Any]:
    if case.startswith(REFERENCE):
        torch.backends.cudnn.allow_tf32 = not case.endswith(TF32)
        return against_cpu(case.removeprefix(REFERENCE).removesuffix(TF32).strip())
    family, dtype, attention = case.split()
    if missing := [module for module in NEEDS.get(family, ()) if importlib.util.find_spec(module) is None]:
        return {"skipped": f"needs {', '.join(missing)}"}
    with without_vision_tower():
        session = opened(checkpoint(family), "auto", dtype, None if attention == "default" else attention)
        _, facts = rows_of(session)
    return facts


def against_cpu(dtype: str) -> dict[str, Any]:
    """Hold the reference model's rows on this device against those on the CPU in float32."""
    rows, facts = rows_of(opened(REFERENCE_FOLDER, "auto", dtype))
    expected = rows_on_cpu()
    answers = [row.get("winner", row.get("pred_patch")) for row in rows]
    of_cpu = [row.get("winner", row.get("pred_patch")) for row in expected]
    logits = [name for name in expected[0] if name.startswith("logit_")]
    difference = max(abs(row[name] - other[name]) for row, other in zip(rows, expected, strict=True) for name in logits)
    same = sum(a == b for a, b in zip(answers, of_cpu, strict=True))
    return {"answers as on the CPU": same, "answers": len(rows), "largest difference of two logits": difference, **facts}


@cache
def rows_on_cpu() -> list[Row]:
    return rows_of(opened(REFERENCE_FOLDER, "cpu", "float32"))[0]


def opened(model: Path, device: str, dtype: str, attention: str | None = None) -> Session:
    choice = ModelChoice(str(model), device=device, dtype=dtype, attention=attention)
    return open_session(choice, ask("speaker"), clips(), engines=ENGINES)


def rows_of(session: Session) -> tuple[list[Row], dict[str, Any]]:
    """Return the rows of the lens and of patching, and what the self-check and they themselves tell."""
    a, b, c = clips()
    donors = {b: [a], a: [b]} if session.engine != "splice" else {b: [a], a: [b, c], c: [a]}  # others need equal lengths
    groups = [[Pair("semantic", recipient, donor) for recipient in recipients] for donor, recipients in donors.items()]
    rows = [row for of_clip in layers_of(session, [[sample] for sample in (a, b, c)]) for row in of_clip]
    patches = patch_pairs(session, groups, of=sum(map(len, groups)), earlier=Path("none"), align="splice", cache_gb=None)
    patched = [row for of_donor in patches for row in of_donor]
    again = {row["pair_id"] for row in patched if row["engine"] != session.engine}
    facts = {"engine": session.engine, "tied": sum(row["tied"] for row in rows + patched), "of rows": len(rows + patched)}
    return rows + patched, facts | {"pairs patched again": len(again), **session.check.figures()}


@cache
def folder() -> Path:
    """Return a folder for this process, gone when it ends."""
    stack = ExitStack()
    atexit.register(stack.close)
    return Path(stack.enter_context(tempfile.TemporaryDirectory()))


@cache
def checkpoint(family: str) -> Path:
    with without_vision_tower():
        return ALL_FAMILIES[family](folder() / family)


@cache
def clips() -> tuple[Sample, ...]:
    """Write three clips, noises with a tone, whose words and voice name different labels; return them."""
    return tuple(_clips())


def _clips() -> Iterator[Sample]:
    rng = np.random.default_rng(0)
    one = Sample("", Path(), "a text", "text", "happy", "sad", "anna", "en", "tone")
    for number, (name, seconds) in enumerate(LENGTHS.items()):
        time = np.arange(int(seconds * RATE)) / RATE
        wave = 0.2 * rng.standard_normal(len(time)) + 0.3 * np.sin(2 * np.pi * 200 * (number + 1) * time)
        soundfile.write(folder() / f"{name}.wav", np.clip(wave, -1, 1), RATE)
        yield replace(one, sample_id=name, audio=folder() / f"{name}.wav", semantic_label=("happy", "angry", "neutral")[number])
