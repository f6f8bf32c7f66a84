"""What is learned from is another text and another speaker than what it is tried on."""

import numpy as np
import pytest

from common.stats.splits import held_out, parted


@pytest.mark.parametrize(("texts", "speakers"), [(50, 2), (12, 24), (2, 24), (900, 1), (5, 3)])
def test_held_out_clips_share_nothing_with_those_learned_from(texts: int, speakers: int) -> None:
    rng = np.random.default_rng(0)
    text, speaker = (rng.integers(n, size=400).astype(str) for n in (texts, speakers))
    labels = np.array([f"label {int(t) % 5}" for t in text])
    seen = np.zeros(400, dtype=int)
    for learn, out in held_out(text, speaker, labels, seed=1):
        assert not {*text[learn]} & {*text[out]}
        assert speakers == 1 or not {*speaker[learn]} & {*speaker[out]}
        assert len(learn)
        seen[out] += 1
    assert (seen == 1).all()
    assert parted(text, speaker) == (("texts",) if speakers == 1 else ("texts", "speakers"))


def test_labels_stand_in_every_part_where_texts_allow() -> None:
    text = np.repeat(np.arange(50).astype(str), 4)
    labels = np.array([f"label {int(t) // 10}" for t in text])
    for _, out in held_out(text, np.tile(["a", "b"], 100), labels):
        assert len({*labels[out]}) == 5


def test_unknown_speakers_are_nobodys() -> None:
    assert parted(["a", "b"], ["", "x"]) == ("texts",)


def test_of_one_text_nothing_is_left_to_learn_from() -> None:
    (learn, out) = held_out(["a"] * 4, ["x", "x", "y", "y"], ["l"] * 4)[0]
    assert not len(learn) and len(out)
