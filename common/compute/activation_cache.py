"""Keep recorded runs in memory up to a budget; choose batch sizes."""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Generic, TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


class ActivationCache(Generic[Item, Result]):
    """Results of `make`, kept up to `budget` bytes: the whole of each until its turn is over, and from then on what is `light`.

    `turns` are the items in the order in which their whole is asked for, once each. Where the budget is short, the wholes go
    first whose turn is farthest away, and then light results not asked for the longest; either is made again when needed.
    """

    def __init__(
        self,
        make: Callable[[Item], Result],
        *,
        light: Callable[[Result], Result],
        store: Callable[[Result], Result],
        size: Callable[[Result], int],
        turns: Iterable[Item],
        budget: int,
    ) -> None:
        self._make, self._light_of, self._store, self._size, self._budget = make, light, store, size, budget
        self._turn = {item: number for number, item in enumerate(turns)}
        self._whole: dict[Item, Result] = {}
        self._light: OrderedDict[Item, Result] = OrderedDict()
        self.bytes = 0

    def light(self, item: Item) -> Result:
        """Return what is light of an item's result."""
        if item not in self._light:
            self._keep(item, self._make(item))
        self._light.move_to_end(item)
        return self._light[item]

    def whole(self, item: Item) -> Result:
        """Return an item's result, for its turn."""
        self._turn.pop(item, None)
        if item in self._whole:
            result = self._whole.pop(item)
            self.bytes -= self._size(result)
        else:
            result = self._make(item)
            self._keep(item, result)
        return result

    def _keep(self, item: Item, result: Result) -> None:
        if item not in self._light:
            self._light[item] = self._store(self._light_of(result))
            self.bytes += self._size(self._light[item])
        if item in self._turn:
            self._whole[item] = result
            self.bytes += self._size(result)
        while self.bytes > self._budget and self._whole:
            farthest = max(self._whole, key=self._turn.__getitem__)
            self.bytes -= self._size(self._whole.pop(farthest))
        while self.bytes > self._budget and len(self._light) > 1:
            self.bytes -= self._size(self._light.popitem(last=False)[1])
        if item in self._whole:  # only now: it may be large, and to be stored means to be moved
            self._whole[item] = self._store(result)


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
