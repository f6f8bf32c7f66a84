"""Which findings become a sentence, in which order, and which others it is made of; the sentences are in wording/."""

from collections.abc import Mapping
from types import ModuleType

from common.stats.facts import Fact

PROBED = ("accuracy", "chance", "answered", "beyond_permuted", "beyond_random_weights", "beyond_duration_and_level")
# A sentence's first fact: the others that it uses. Kept in the order in which they are read.
LENS: Mapping[str, tuple[str, ...]] = {
    "voice_lead": ("win_prosody", "win_semantic", "win_other", "margin", "margin_excess"),
    "win_prosody_excess": ("win_prosody_null",),
    "win_semantic_excess": ("win_semantic_null",),
    "crossing": ("decision_layer",),
    "margin_excess: stretch 0": (),
    "mass": (),
    "accuracy": (),
    "cells": (),
    "agreement": ("no_label",),
    **{f"unsaid: {kind}": tuple(f"{name}: {kind}" for name in PROBED) for kind in ("prosody", "semantic")},
    "voice_lead without a label": (),
}
PATCHING: Mapping[str, tuple[str, ...]] = {
    "flips": ("pairs", "flips: real", "flips: control"),
    "layers": (),
    "delta": ("delta: real", "delta: control"),
    "directedness": ("directedness: real", "directedness: control"),
    "crossing": ("flip_from_base",),
    "nothing_left": (),
    "flips without a label": (),
}
# Findings against further control donors stand in the table of transfer.csv, those of further stretches with the first.
IN_TABLES = ("random_donor", "silence", "stretch", ": prompts", ": wordings", ": orders")
SHORT = ("voice_lead", "crossing", "flips")


def lens_sentences(facts: Mapping[str, Fact], wording: ModuleType) -> dict[str, str]:
    """Return the sentences on a lens run, by their first fact."""
    return {name: wording.LENS[name](facts) for name in LENS if name in facts}


def patching_sentences(kind: str, facts: Mapping[str, Fact], wording: ModuleType) -> dict[str, str]:
    """Return the sentences on the pairs of a kind, by their first fact."""
    return {name: wording.PATCHING[name](facts, kind) for name in PATCHING if name in facts}


def unsaid(names: list[str], order: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Return the facts that no sentence uses and no table shows: there must be none."""
    used = {*order, *(name for others in order.values() for name in others)}
    return [name for name in names if name not in used and not any(part in name for part in IN_TABLES)]
