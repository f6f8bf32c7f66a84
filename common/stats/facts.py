"""A finding as it may be said: the number, its interval, what that is over, the control and the test. Words are made elsewhere."""

from dataclasses import dataclass

import pandas as pd

NAN = float("nan")


@dataclass(frozen=True)
class Fact:
    """One finding. `name` is what it is of, `verdict` what the test decides ("none" where it decides nothing), `row` its place.

    `over`: what the interval generalises over ("50 texts"); `fixed`: what it holds for alone ("2 speakers"). `control`: what it was
    held against. nan and "" stand for what there is not.
    """

    name: str
    value: float
    lo: float = NAN
    hi: float = NAN
    unit: str = ""
    n: int = 0
    over: str = ""
    fixed: str = ""
    control: str = ""
    test: str = ""
    p: float = NAN
    verdict: str = ""
    row: str = ""


def fact(row: pd.Series, column: str, **told: object) -> Fact:
    """Return a column of a table's row with its interval, what that is over, and whatever is `told` besides."""
    ends = {end: float(row.get(f"{column}_{end}", NAN)) for end in ("lo", "hi")}
    base = {"name": column, "value": float(row[column]), "n": int(row.n), "over": over(row), "fixed": held(row), **ends}
    return Fact(**(base | told))  # type: ignore[arg-type]


def over(row: pd.Series) -> str:
    """Return what an interval is over, with numbers: "50 texts and 12 speakers"."""
    if str(row.clusters).startswith("none"):
        return ""
    return " and ".join(f"{int(row[f'n_{name}'])} {name}" for name in row.clusters.split(" and "))


def held(row: pd.Series) -> str:
    return "" if pd.isna(row.held_fixed) else str(row.held_fixed)


def sided(row: pd.Series, column: str) -> int:
    """Return on which side of 0 the interval of a column lies; 0 where it holds 0, or there is none."""
    return int(row[f"{column}_lo"] > 0) - int(row[f"{column}_hi"] < 0)


def shown(value: float, lo: float = NAN, hi: float = NAN, form: str = ".2f") -> str:
    """Return "value [lo, hi]", the value alone where there is no interval, "-" where there is no value."""
    if pd.isna(value):
        return "-"
    return f"{value:{form}}" + ("" if pd.isna(lo) else f" [{lo:{form}}, {hi:{form}}]")


def stated(row: pd.Series, column: str, form: str = ".2f") -> str:
    """Return a column of a table's row as `shown`; without an interval where the table gives none."""
    return shown(row[column], row.get(f"{column}_lo", NAN), row.get(f"{column}_hi", NAN), form)


def p_value(p: float) -> str:
    return "p not given" if pd.isna(p) else "p < .001" if p < 0.001 else f"p = {p:.3f}"
