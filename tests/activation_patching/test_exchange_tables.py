"""Tables of an exchange by hand: beside a random subspace, and how much of the whole state's effect a subspace has."""

import numpy as np
import pandas as pd
import pytest

from activation_patching.span.findings import exchange_effects
from activation_patching.span.tables import tables_of
from common.clips.manifest import LABELS

LAYERS, CHANGED = 5, (2, 3, 4)  # an exchange changes answers from l = 2 on


def rows(changed: dict[str, float], *, n: int = 120, seed: int = 0) -> pd.DataFrame:
    """Return rows of prosody pairs; an exchange brings the target for the recipient's own label in a share of the pairs, by its
    control.
    """
    rng, table = np.random.default_rng(seed), []
    for control, share in changed.items():
        for i in range(n):
            moves, text = rng.random() < share, f"t{i % 12}"
            own, target = "happy", ("sad", "surprised")[i // 12 % 2]
            for layer in range(LAYERS):
                moved = moves and layer in CHANGED
                answer = target if moved else own
                same = f"prosody:{i}<-{i + 1}"
                row = {"pair_id": same if control == "none" else f"{same}|{control}:{i + 1}", "true_pair_id": same}
                row |= {"kind": "prosody", "control": control, "target": target, "layer": layer, "kv_shared": 0}
                row |= {"pred_base": own, "pred_patch": answer}
                row |= {f"logit_{x}": float(x == answer) for x in LABELS} | {f"base_{x}": float(x == own) for x in LABELS}
                row |= {"flip_to_target": int(answer == target), "flip_from_base": int(moved)}
                row |= {"delta_logit": float(answer == target) - float(own == target)}
                for role, voice in (("recipient", own), ("donor", target)):
                    row |= {f"{role}_text_id": text, f"{role}_semantic_label": "neutral", f"{role}_prosody_label": voice}
                table.append(row | {"intervention": "exchange", "at": "last", "rank": 4, "decoded": int(layer > 0)})
    return pd.DataFrame(table)


def test_an_exchange_that_a_random_subspace_does_as_well_is_no_finding() -> None:
    table = rows({"none": 0.5, "random_subspace": 0.5, "whole": 0.9})
    (found,) = exchange_effects(tables_of(table))
    assert found.effect.side == found.random.side == 1 and found.minus_random.side == 0


def test_an_exchange_is_held_against_the_random_subspace_and_the_whole_state_on_the_same_pairs() -> None:
    table = rows({"none": 0.4, "random_subspace": 0.05, "whole": 0.8})
    tables = tables_of(table)
    (found,) = exchange_effects(tables)
    by_target = table[table.layer == 3].groupby(["control", "target"]).flip_from_base.mean()
    effect = {c: by_target[c].mean() for c in ("none", "random_subspace", "whole")}  # no third label ever comes
    assert found.effect.value == pytest.approx(2 / 3 * effect["none"])
    assert found.minus_random.value == pytest.approx(2 / 3 * (effect["none"] - effect["random_subspace"]))
    assert found.minus_random.side == 1
    assert found.of_whole is not None and found.of_whole.value == pytest.approx(effect["none"] / effect["whole"])
    assert found.of_whole.low < found.of_whole.value < found.of_whole.high
    assert set(tables["effects"].control) == set(tables["summary"].control) == {"none", "random_subspace", "whole"}


def test_of_a_whole_state_that_does_nothing_there_is_no_share() -> None:
    (found,) = exchange_effects(tables_of(rows({"none": 0.4, "random_subspace": 0.0, "whole": 0.0})))
    assert found.of_whole is None


def test_pairs_that_lack_a_control_are_left_out_of_the_comparison_whatever_the_order_of_their_ids() -> None:
    table = rows({"none": 0.4, "random_subspace": 0.4})
    some = table[(table.control == "none") | table.true_pair_id.str.contains(r":\d?\d<-")]
    (found,) = exchange_effects(tables_of(some.sample(frac=1, random_state=0)))
    assert found.effect.n == found.random.n == 100
    equal = table[table.control == "none"]
    again = equal.assign(control="random_subspace", pair_id=equal.pair_id + "|random_subspace:" + equal.true_pair_id.str[-1])
    (found,) = exchange_effects(tables_of(pd.concat([equal, again])))
    assert (found.minus_random.value, found.minus_random.high) == (0, found.minus_random.low) == (0, 0)  # pair by pair


def test_without_a_random_subspace_nothing_is_found() -> None:
    assert exchange_effects(tables_of(rows({"none": 0.8}))) == []
