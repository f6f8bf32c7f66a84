"""The types that findings are made of: estimates, counts, spreads."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import pandas as pd

NAN = float("nan")
FACTORS = ("texts", "speakers", "sources")


class Count(NamedTuple):
    """How many levels of a factor there are: 50 "texts"."""

    number: int
    name: str


@dataclass(frozen=True)
class Estimate:
    """A number and its 95 % interval: `over` is what the interval generalises over, `n` how many units the number is made of.

    `low` and `high` are nan, and `over` is empty, where there is nothing to resample.
    """

    value: float
    low: float = NAN
    high: float = NAN
    n: int = 0
    over: tuple[Count, ...] = ()

    @property
    def side(self) -> int:
        """Return on which side of 0 the interval lies: 1, -1, or 0 where it holds 0 or there is none."""
        return int(self.low > 0) - int(self.high < 0)


def estimate_of(row: pd.Series, column: str) -> Estimate:
    """Return a column of a table's row with its interval."""
    low, high = (float(row.get(f"{column}_{end}", NAN)) for end in ("lo", "hi"))
    return Estimate(float(row[column]), low, high, int(row.n), over(row))


def over(row: pd.Series) -> tuple[Count, ...]:
    """Return what a row's intervals are over."""
    return tuple(Count(int(row[f"n_{name}"]), name) for name in FACTORS if name in _resampled(row))


def fixed(row: pd.Series) -> tuple[Count, ...]:
    """Return what a row's intervals hold for alone: factors with too few levels. What lies within resampled sources is none."""
    names = [name for name in FACTORS if row.get(f"n_{name}", 0) > 0 and name not in _resampled(row)]
    return () if "sources" in _resampled(row) else tuple(Count(int(row[f"n_{name}"]), name) for name in names)


def _resampled(row: pd.Series) -> list[str]:
    return [] if str(row.clusters).startswith("none") else str(row.clusters).split(" and ")


@dataclass(frozen=True)
class Spread:
    """How far a result moves over prompts: its least and largest value, and in how many of them its interval excludes 0."""

    what: str
    least: float
    most: float
    shown: int
    prompts: int
    n: int


def headline_of(rows: Iterable[tuple[str, str, str, Estimate]]) -> pd.DataFrame:
    """Return the main results that prompts.csv compares, from (what, unit, kind that it is about, estimate) of each."""
    found = [(what, unit, e.value, e.low, e.high, kind, e.n) for what, unit, kind, e in rows]
    return pd.DataFrame(found, columns=["what", "unit", "value", "lo", "hi", "kind", "n"])


def spreads(prompts: pd.DataFrame) -> list[Spread]:
    """Return how far each result of prompts.csv moves, those that every prompt has a value of."""
    found = []
    for what, rows in prompts.groupby("what", sort=False):
        shown = int(((rows.lo > 0) | (rows.hi < 0)).sum())
        if rows.value.notna().any():
            found.append(Spread(str(what), rows.value.min(), rows.value.max(), shown, len(rows), int(rows.n.max())))
    return found
