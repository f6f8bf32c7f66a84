"""Start the scripts as processes of their own, to be killed, on the tiny model; a server that has imported torch forks them."""

import faulthandler
import importlib
import multiprocessing
import os
import random
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

from tests.test_scripts import ROOT, ROWS

LIMITS = {"logit_lens": ("--limit", "12"), "activation_patching": ("--max-pairs", "20")}
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.torture.starts", *(f"{name}.run" for name in ROWS)])


@dataclass(frozen=True)
class Job:
    """A script with its model and clips, the folder it writes to, and what more it is told."""

    name: str
    model: Path
    data: Path
    out: Path
    more: tuple[str, ...] = ()

    @property
    def arguments(self) -> list[str]:
        options = ("--model", self.model, "--data", self.data, "--out", self.out, "--device", "cpu")
        return [*map(str, options), *LIMITS[self.name], *self.more]
