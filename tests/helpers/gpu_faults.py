"""A part of `make gpu` that goes wrong in every way: for tests/project/test_gpu.py. With FAULTS=off everything goes well."""

import os
import signal
import time
from typing import Any

import torch


def cases(*, small: bool) -> list[str]:
    return ["raises", "memory", "killed", "fine"]


def measure(case: str, *, small: bool) -> dict[str, Any]:
    if os.environ.get("FAULTS") == "off":
        return {"made": time.time()}
    if case == "raises":
        raise ValueError("a family that raises")
    if case == "memory":
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    if case == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    return {"made": time.time()}
