"""Translate the short texts of figures and tables, and format numbers."""

import math
import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from babel.messages.pofile import read_po

from common.stats.findings import Estimate

LANGUAGES = ("en", "zh")
LOCALE = Path(__file__).resolve().parent / "locale"
Say = Callable[..., str]
GAP = {"en": "\u00a0", "zh": ""}  # before a percent sign, which no line begins with


@cache
def texts(language: str) -> Mapping[str, str] | None:
    """Return the short texts of a language by their English; None for English."""
    if language == "en":
        return None
    with open(LOCALE / f"{language}.po", "rb") as file:
        return {str(m.id): str(m.string) for m in read_po(file, locale=language) if m.id}


def translation(language: str) -> Say:
    """Return what says a short text in a language, with its values filled in; what is not known, as a label, stays as it is."""
    known = texts(language) or {}
    return lambda text, **values: known.get(str(text), str(text)).format(**values) if values else known.get(str(text), str(text))


def formats(language: str) -> dict[str, Callable[..., Any]]:
    """Return the filters by which the templates write numbers."""

    def percent(share: Estimate | float) -> str:
        value = share.value if isinstance(share, Estimate) else share
        return f"{rounded(100 * value):.0f}{GAP[language]}%"

    def points(share: Estimate) -> str:
        return f"{rounded(100 * abs(share.value)):.0f}"

    return {"percent": percent, "points": points, "place": place, "interval": interval, "decimals": decimals, "size": size}


def rounded(value: float, digits: int = 0) -> float:
    """Return a number rounded, halves away from 0, so that a share and its percentage agree."""
    return value if math.isnan(value) else math.copysign(math.floor(abs(value) * 10**digits + 0.5) / 10**digits, value)


def decimals(estimate: Estimate | float, digits: int = 2) -> str:
    value = estimate.value if isinstance(estimate, Estimate) else estimate
    number = f"{rounded(value, digits):.{digits}f}"
    if math.isnan(value):
        return "–"
    return number.replace("-", "−") if re.search("[1-9]", number) else number.lstrip("-")  # no minus before zero


def place(estimate: Estimate) -> str:
    """Return a place between layers."""
    return decimals(estimate, 1)


def interval(estimate: Estimate, digits: int = 2) -> str:
    """Return the ends of an interval; a dash where there is none."""
    if math.isnan(estimate.low) or math.isnan(estimate.high):
        return "–"
    return f"{decimals(estimate.low, digits)}{' – ' if estimate.low < 0 else '–'}{decimals(estimate.high, digits)}"


def size(parameters: float) -> str:
    """Return how many parameters a model has: 171 M, 7.6 B."""
    return f"{parameters / 1e9:.1f} B" if parameters >= 1e9 else f"{parameters / 1e6:.3g} M"
