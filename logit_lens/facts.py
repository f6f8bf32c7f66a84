"""What a lens run found, from its tables: numbers, intervals, controls and verdicts, without words."""

from typing import Any

import pandas as pd

from common.stats.facts import Fact, fact, sided

CONTROLS = ("beyond_permuted", "beyond_random_weights", "beyond_duration_and_level")
SIDES = {1: "prosody", -1: "semantic", 0: "none"}


def lens_facts(tables: dict[str, pd.DataFrame]) -> dict[str, Fact]:
    """Return the findings by name. The primary outcome, named before any number: `voice_lead` at l = L."""
    last = tables["layers"].iloc[-1]
    row = f"layers.csv, l = {last.layer:.0f}"
    share: dict[str, Any] = {"unit": "share of clips", "row": row}
    paired = "95 % interval of a paired difference of shares"
    facts = [fact(last, f"win_{outcome}", **share) for outcome in ("semantic", "prosody", "other")]
    facts.append(fact(last, "voice_lead", test=paired, verdict=SIDES[sided(last, "voice_lead")], **share))
    facts.append(fact(last, "margin", unit="logits", row=row))
    for kind, other in (("prosody", "words'"), ("semantic", "voice's")):
        if f"win_{kind}_excess" in last:
            told: dict[str, Any] = {"control": f"answers shuffled among clips with the same {other} label", "test": paired}
            above = {1: "more", -1: "less", 0: "none"}[sided(last, f"win_{kind}_excess")]
            facts.append(fact(last, f"win_{kind}_excess", verdict=above, **told, **share))
            facts.append(Fact(f"win_{kind}_null", float(last[f"win_{kind}_null"]), n=int(last.n), **share))
    if len(congruent := tables["congruent"]):
        facts.append(
            fact(congruent.iloc[-1], "accuracy", unit="share of congruent clips", row=f"congruent.csv, l = {last.layer:.0f}")
        )
    if len(tables["decision_layer"]):
        found = tables["decision_layer"].iloc[0]
        looked_at = tables["layers"].layer[tables["layers"].layer > 0]
        row = f"decision_layer.csv, l = {looked_at.min():.0f} to {looked_at.max():.0f}"
        told = {"unit": "layer l", "row": row, "test": "Fieller's interval of the interpolated crossing"}
        reason = found.reason if isinstance(found.reason, str) else ""
        facts.append(fact(found, "crossing", verdict=found.side if found.side != "none" else f"none: {reason}", **told))
        bands = "bands of the win rate over each other outcome and of the margin beyond the label prior"
        facts.append(
            Fact(
                "decision_layer",
                float(found.decision_layer),
                unit="layer l",
                n=int(found.n),
                test=bands,
                verdict=found.side,
                row=row,
            )
        )
    if len(tables.get("generated", ())):
        told = {"unit": "share of clips", "row": "generated.csv", "test": "95 % interval of a share"}
        facts += [fact(tables["generated"].iloc[0], column, **told) for column in ("agreement", "no_label")]
    if len(without := tables["leave_out"].query("label != ''")) > 1:
        leads = [sided(r, "voice_lead") for _, r in without.iterrows()]
        same = set(leads) == {sided(last, "voice_lead")}
        names = [str(r.label) for (_, r), side in zip(without.iterrows(), leads) if side != sided(last, "voice_lead")]
        told = {
            "unit": "share of clips",
            "n": len(without),
            "row": "leave_out.csv",
            "test": "each label and each cell left out in turn",
        }
        ends = (without.voice_lead.min(), without.voice_lead.max())
        facts.append(
            Fact("voice_lead without a label", float("nan"), *ends, verdict="same" if same else ", ".join(names), **told)
        )
    return {f.name: f for f in (*facts, *probe_facts(tables.get("probe", pd.DataFrame())))}


def probe_facts(probe: pd.DataFrame) -> list[Fact]:
    """Return, of each label, where a probe tells the most that the answer does not say, and what it is held against there.

    The place is picked for being the largest, so every interval is the band over all layers of both positions.
    """
    facts = []
    for kind, of_kind in probe[probe.probe == "states"].groupby("label", sort=False) if len(probe) else ():
        place = of_kind.loc[of_kind.unsaid.idxmax()]
        known = place.unsaid_band_lo > 0 and place.beyond_permuted_band_lo > 0  # an answer at 0 is less than a guess
        facts += [_banded(place, "unsaid", control=str(place.held_out), verdict="more" if known else "none")]
        facts += [_banded(place, c) for c in ("accuracy", *CONTROLS) if not pd.isna(place.get(c, float("nan")))]
        values = {"chance": place.chance, "answered": place.accuracy - place.unsaid}
        facts += [
            Fact(f"{name}: {kind}", float(value), n=int(place.n), unit="share of clips", row=_row(place))
            for name, value in values.items()
        ]
    return facts


def _row(place: pd.Series) -> str:
    return f"probe.csv, {place.position}, l = {place.layer:.0f}"


def _banded(place: pd.Series, column: str, **told: Any) -> Fact:
    """Return a column of probe.csv at a place with its band for an interval."""
    ends = {end: float(place[f"{column}_band_{end}"]) for end in ("lo", "hi")}
    base: dict[str, Any] = {"name": f"{column}: {place.label}", "unit": "share of clips", "row": _row(place)}
    return fact(place, column, **(base | ends | {"test": "band over all layers of both positions"} | told))
