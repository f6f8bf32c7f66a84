"""A finding as it may be said: number, interval, what that is over, control and test. Each experiment makes its words of them."""

from dataclasses import dataclass
from typing import Any

import pandas as pd

NAN = float("nan")
ORDERS = ("reversed", "rotated")  # ends of the names of prompts that list the options in another order


@dataclass(frozen=True)
class Fact:
    """One finding. `name` is what it is of, `verdict` what the test decides ("none" where it decides nothing), `row` its place.

    `over`: what the interval generalises over ("50 texts"); `fixed`: what it holds for alone ("2 speakers"). `control`: what it
    was held against. nan and "" stand for what there is not.
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


def fact(row: pd.Series, column: str, /, **told: Any) -> Fact:
    """Return a column of a table's row with its interval, what that is over, and whatever is `told` besides."""
    ends = {end: float(row.get(f"{column}_{end}", NAN)) for end in ("lo", "hi")}
    base: dict[str, Any] = {
        "name": column,
        "value": float(row[column]),
        "n": int(row.n),
        "over": over(row),
        "fixed": held(row),
        **ends,
    }
    return Fact(**(base | told))


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


def spread(prompts: pd.DataFrame | None, what: str) -> list[Fact]:
    """Return how far a result of prompts.csv moves: over all prompts, over the wordings, over the orders of the options.

    Orders are prompts that end in the name of an order, beside the wording that they are orders of.
    """
    rows = prompts[prompts.what == what] if prompts is not None else None
    if rows is None or len(rows) < 2:
        return []
    order = rows.prompt.str.endswith(ORDERS)
    base = rows.prompt.str.replace("|".join(f"-{o}$" for o in ORDERS), "", regex=True)
    parts = {"prompts": rows, "wordings": rows[~order], "orders": rows[base.isin(base[order])]}
    facts = []
    for name, part in parts.items():
        found = part.value.dropna()
        if len(part) > 1 and len(found):
            told: dict[str, Any] = {
                "n": len(part),
                "test": f"n = {part.n.max():.0f}" if "n" in part else "",
                "unit": str(part.unit.iloc[0]),
                "verdict": f"none in {len(part) - len(found)}" * (len(found) < len(part)),
            }
            facts.append(
                Fact(f"{what}: {name}", float(found.max() - found.min()), found.min(), found.max(), row="prompts.csv", **told)
            )
    return facts


def moved(prompts: pd.DataFrame | None, what: str, form: str = "+.2f") -> str:
    """Say how far a result moves over the prompts, and whether wording or order moves it; nothing where one prompt was run."""
    facts = {f.name.rsplit(": ", 1)[1]: f for f in spread(prompts, what)}
    if "prompts" not in facts:
        return ""

    def ends(fact: Fact) -> str:
        return f"{fact.lo:{form}} to {fact.hi:{form}}" + (f", {fact.verdict}" if fact.verdict else "")

    parts = [f"{f.n} {name} {ends(f)}" for name, f in facts.items() if name != "prompts"]
    all_of_them = facts["prompts"]
    each = f" ({all_of_them.test})" if all_of_them.test else ""
    return f" Over {all_of_them.n} prompts{each}: {ends(all_of_them)}" + (f" ({'; '.join(parts)})." if parts else ".")


def scope(fact: Fact) -> str:
    """Say what a finding's interval is over and what it holds for alone."""
    if not fact.over:
        return "no interval: nothing to resample"
    return f"95 % intervals over {fact.over}" + (f", for these {fact.fixed} alone" if fact.fixed else "")


def say(fact: Fact, form: str = ".2f") -> str:
    return shown(fact.value, fact.lo, fact.hi, form)


def one_label(fact: Fact, primary: Fact) -> str:
    """Say whether one label makes the primary outcome, from its range without each of them."""
    same = fact.verdict == "same"
    if primary.verdict == "none":
        stays = "not shown whichever goes" if same else f"shown only without {fact.verdict}"
    else:
        stays = "shown whichever goes, so no one label makes it" if same else f"not shown without {fact.verdict}"
    return f"**One label?** With {fact.test} the primary outcome is {fact.lo:+.2f} to {fact.hi:+.2f}: {stays}."
