"""Seconds, memory, matrix products and tables of the benchmark."""

import contextlib
import csv
import ctypes
import gc
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from common.model.lm import AudioLM

STARTED = time.perf_counter()
ATTENTION = tuple(
    getattr(torch.ops.aten, f"_scaled_dot_product_{kernel}")
    for kernel in ("efficient_attention", "flash_attention", "cudnn_attention", "flash_attention_for_cpu")
)


def say(text: str) -> None:
    print(f"[{time.perf_counter() - STARTED:5.0f} s] {text}", flush=True)


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """Return the seconds that `call` takes, with all that it left running on a GPU, and its result."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    result = call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start, result


def fastest(call: Callable[[], Any], times: int) -> float:
    return min(timed(call)[0] for _ in range(times))


def product_peak(lm: AudioLM, *, width: int, mlp: int, square: int = 2048) -> float:
    """Return the most FLOP/s that torch's own linear layer reaches on sizes of a sweep's order, and on a `square`."""
    sizes = [(rows, *kn) for rows in (256, 700, 1400, 2048) for kn in ((width, mlp), (mlp, width))]
    return max(_product_speed(lm, *size) for size in (*sizes, (square,) * 3))


def _product_speed(lm: AudioLM, m: int, k: int, n: int) -> float:
    x, weight = (torch.randn(rows, k, device=lm.device, dtype=lm.dtype) for rows in (m, n))
    with torch.inference_mode():
        return 2 * m * k * n / fastest(lambda: torch.nn.functional.linear(x, weight), 8)


def products(call: Callable[[], Any]) -> float:
    """Return the FLOP of the linear layers that `call` runs; attention is not among them."""
    return operations(call)[0]


def operations(call: Callable[[], Any]) -> tuple[float, float]:
    """Return the FLOP of the matrix products that `call` runs, and those of its attention."""
    with FlopCounterMode(display=False, custom_mapping=dict.fromkeys(ATTENTION, _attention)) as counter:
        call()
    counts = counter.get_flop_counts()["Global"]
    attention = sum(counts.get(op, 0) for op in ATTENTION)
    return float(counter.get_total_flops() - attention), float(attention)


def _attention(query: torch.Size, key: torch.Size, value: torch.Size, *args: Any, out_shape: Any = None, **more: Any) -> int:
    """Return the FLOP of attention between shapes [row, head, pos, head_dim]; keys may have fewer heads.

    Torch's own formula is for equal heads alone up to torch 2.11.
    """
    row, head, pos, wide = query
    return 2 * row * head * pos * key[-2] * (wide + value[-1])


def reset_memory(device: torch.device) -> float:
    """Start a new high-water mark of the memory in use; return what is in use now, in GB."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device) / 1e9
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)  # else what was freed before counts as in use, and its reuse as free of charge
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def peak_memory(device: torch.device) -> float:
    return torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else _status("VmHWM")


def _status(key: str) -> float:
    """Return a memory figure of this process in GB; nan where the system does not tell."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(key + ":"):
                return int(line.split()[1]) * 1024 / 1e9
    return float("nan")


def machine() -> str:
    name = platform.processor()
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return f"{name}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"


class Report:
    """Tables as they come: printed, and written as markdown and as CSV rows `table, row, column, value`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.text, self.rows = folder, "", [("table", "row", "column", "value")]
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, title: str, columns: list[str], rows: list[list[Any]]) -> None:
        shown = [[f"{v:.3g}" if isinstance(v, float) else str(v) for v in row] for row in rows]
        lines = ["| " + " | ".join(cells) + " |" for cells in (columns, ["---"] * len(columns), *shown)]
        table = f"### {title}\n\n" + "\n".join(lines) + "\n\n"
        print("\n" + table, end="", flush=True)
        self.text += table
        self.rows += [(title, str(row[0]), column, str(v)) for row in rows for column, v in zip(columns[1:], row[1:])]
        (self.folder / "table.md").write_text(self.text, encoding="utf-8")
        with open(self.folder / "table.csv", "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(self.rows)
