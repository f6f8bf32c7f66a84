import numpy as np
import pandas as pd
import pytest

from common.metrics import bootstrap_interval, lens_layers, patch_layers


def lens_table(outcomes: list[list[str]], margins: list[list[float]], texts: list[str]) -> pd.DataFrame:
    rows = [
        {"sample_id": f"c{i}", "layer": layer, "outcome": o, "margin": m, "text_id": text}
        for i, text in enumerate(texts)
        for layer, (o, m) in enumerate(zip(outcomes[i], margins[i]))
    ]
    return pd.DataFrame(rows)


def test_lens_layers_by_hand() -> None:
    rows = lens_table(
        [["other", "semantic"], ["prosody", "semantic"], ["other", "prosody"]], [[0, -1], [2, -3], [1, 1]], ["a", "a", "b"]
    )
    table = lens_layers(rows, seed=0)
    assert table.n.tolist() == [3, 3] and table.n_texts.tolist() == [2, 2]
    np.testing.assert_allclose(table.margin, [1, -1])
    np.testing.assert_allclose(table[["win_semantic", "win_prosody", "win_other"]], [[0, 1 / 3, 2 / 3], [2 / 3, 1 / 3, 0]])
    # two texts: a draw is text a twice, text b twice, or both; means of the margin at l = 0 are 1, 1, 1, at l = 1 -2, 1, -1
    assert (table.margin_lo[1], table.margin_hi[1]) == (-2, 1) and table.margin_lo[0] == table.margin_hi[0] == 1


def test_row_order_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    rows = lens_table([["other"] * 3] * 8, rng.normal(size=(8, 3)).tolist(), list("aabbccdd"))
    pd.testing.assert_frame_equal(lens_layers(rows, seed=0), lens_layers(rows.sample(frac=1, random_state=1), seed=0))


def test_a_missing_row_is_an_error_not_another_mean() -> None:
    rows = lens_table([["other"] * 2] * 2, [[0, 1], [2, 3]], ["a", "b"])
    for broken in (rows.iloc[:-1], pd.concat([rows.iloc[:-1], rows.iloc[:1]])):
        with pytest.raises(ValueError, match="not every sample_id has each of the 2 layers once"):
            lens_layers(broken, seed=0)


def test_patch_layers_by_hand() -> None:
    rows = pd.DataFrame(
        [
            # pair, layer, base, donor, to target, from base, delta; the target is sad
            ("p", 0, "happy", "sad", 1, 1, 4.0),
            ("p", 1, "happy", "sad", 0, 0, 0.0),
            ("q", 0, "sad", "angry", 0, 1, -2.0),
            ("q", 1, "sad", "angry", 1, 0, 0.0),
        ],
        columns=["pair_id", "layer", "pred_base", "pred_donor", "flip_to_target", "flip_from_base", "delta_logit"],
    ).assign(kind="prosody", target="sad", recipient_text_id="t", donor_text_id="t")
    table = patch_layers(rows, seed=0)
    assert table.kind.tolist() == ["prosody"] * 2 and table.n.tolist() == [2, 2]
    assert table.flip_to_target.tolist() == [0.5, 0.5] and table.flip_from_base.tolist() == [1, 0]
    assert table.delta_logit.tolist() == [1, 0] and table.floor.tolist() == table.ceiling.tolist() == [0.5, 0.5]
    assert table[["delta_logit_lo", "delta_logit_hi"]].isna().all(axis=None)  # one text: nothing to resample


def test_interval_is_wider_when_clips_share_their_text() -> None:
    values = np.repeat(np.random.default_rng(0).normal(size=(20, 1)), 10, axis=0)  # ten equal clips of each text
    texts, own = np.repeat(np.arange(20), 10), np.arange(200)
    (low, high), (low_naive, high_naive) = (
        bootstrap_interval(values, texts, texts, seed=0),
        bootstrap_interval(values, own, own, seed=0),
    )
    assert (high - low)[0] > 2.5 * (high_naive - low_naive)[0]


@pytest.mark.parametrize("pairs", [False, True])
def test_interval_covers_the_truth(pairs: bool) -> None:
    """95 % intervals of clustered data cover the true mean about 95 times in 100."""
    rng = np.random.default_rng(1)
    first, second = (np.indices((25, 25)).reshape(2, -1)) if pairs else (np.repeat(np.arange(25), 4),) * 2
    keep = first != second if pairs else slice(None)
    covered = 0
    for draw in range(200):
        effects = rng.normal(size=25)
        values = effects[first] + (effects[second] if pairs else 0) + 0.5 * rng.normal(size=len(first))
        low, high = bootstrap_interval(values[keep, None], first[keep], second[keep], seed=draw)
        covered += bool(low[0] <= 0 <= high[0])
    assert 0.87 <= covered / 200 <= 0.985  # the percentile interval of 25 clusters is a little short


def test_the_seed_decides() -> None:
    values, texts = np.random.default_rng(0).normal(size=(30, 2)), np.arange(30)
    assert np.array_equal(bootstrap_interval(values, texts, texts, seed=3), bootstrap_interval(values, texts, texts, seed=3))
    assert not np.array_equal(bootstrap_interval(values, texts, texts, seed=3), bootstrap_interval(values, texts, texts, seed=4))
