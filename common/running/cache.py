"""What a run may hold: traces in main memory up to a budget, rows of a pass as many as the GPU takes."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import psutil
import torch

from common.running.parallel import processes_here

Item = TypeVar("Item")
Result = TypeVar("Result")


def cache_bytes(gigabytes: float | None) -> int:
    """Return the budget of this process in bytes: its part of `gigabytes`, or of a quarter of the free main memory."""
    total = psutil.virtual_memory().available / 4 if gigabytes is None else gigabytes * 1e9
    return int(total / processes_here())


class Kept(Generic[Item, Result]):
    """Results of `make`, kept up to `budget` bytes; beyond it those not asked for the longest are made again when needed."""

    def __init__(self, make: Callable[[Item], Result], *, size: Callable[[Result], int], budget: int) -> None:
        self._make, self._size, self._budget = make, size, budget
        self._kept: OrderedDict[Item, Result] = OrderedDict()
        self.bytes = 0

    def __call__(self, item: Item) -> Result:
        if item in self._kept:
            self._kept.move_to_end(item)
            return self._kept[item]
        result = self._make(item)
        self._kept[item] = result
        self.bytes += self._size(result)
        while self.bytes > self._budget and len(self._kept) > 1:
            self.bytes -= self._size(self._kept.popitem(last=False)[1])
        return result


def in_chunks(work: Callable[[Sequence[Item]], Result], items: Sequence[Item], most: int) -> tuple[list[Result], int]:
    """Call `work` on at most `most` of `items` at a time; where the GPU's memory runs out, on half as many from there on.

    Returns the results and how many at a time it ended with. Raises torch.OutOfMemoryError where one is too many.
    """
    results: list[Result] = []
    start = 0
    while start < len(items):
        try:
            results.append(work(items[start : start + most]))
            start += most
            continue
        except torch.OutOfMemoryError:
            if most == 1:
                raise
        most = min(most, len(items) - start) // 2 or 1  # outside the except: the error holds on to the tensors of the pass
        torch.cuda.empty_cache()
    return results, most
