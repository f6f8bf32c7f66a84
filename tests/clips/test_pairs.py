"""Manifests row by row, and pairs against a list of all pairs, written down the slow way."""

from collections import Counter
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import soundfile

from common.clips.manifest import COLUMNS, LABELS, Sample, conflict_clips, draw, read_manifest
from common.clips.pair_sampling import count_pairs
from common.clips.pairs import NoPairs, Pair, PairRules, build_pairs, control_pairs, lacking_third_labels, listed_pairs
from common.errors import InputError
from tests.tiny_models.tiny import save_manifest

SAME, OTHER = (
    {"semantic": "prosody_label", "prosody": "semantic_label"},
    {"semantic": "semantic_label", "prosody": "prosody_label"},
)


def some_clips(count: int, seed: int, *, speakers: tuple[str, ...] = ("a", "b", "c", "")) -> list[Sample]:
    rng = np.random.default_rng(seed)
    pick = lambda options: options[rng.integers(len(options))]  # noqa: E731
    weighted = (*LABELS, "neutral", "neutral", "sad")  # so that labels are of unequal number
    return [
        sample(pick(weighted), pick(weighted), text=f"t{rng.integers(6)}", speaker=pick(speakers), name=f"{i}")
        for i in range(count)
    ]


def all_pairs(clips: list[Sample], kind: str, shared: tuple[str, ...]) -> set[tuple[str, str]]:
    def fits(a: Sample, b: Sample) -> bool:
        alike = all(getattr(a, f) == getattr(b, f) != "" for f in (SAME[kind], *shared))
        return alike and getattr(a, OTHER[kind]) != getattr(b, OTHER[kind])

    return {(a.sample_id, b.sample_id) for a, b in permutations(clips, 2) if fits(a, b)}


def ids(pairs: list) -> list[tuple[str, str]]:
    return [(p.recipient.sample_id, p.donor.sample_id) for p in pairs]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", ["semantic", "prosody"])
def test_every_rule_gives_just_the_pairs_that_keep_it(kind: str, seed: int) -> None:
    clips = some_clips(60, seed)
    for rules, shared in (
        (PairRules(same_speaker=False, same_text=False), ()),
        (PairRules(same_speaker=True, same_text=False), ("speaker",)),
        (PairRules(same_speaker=False, same_text=True), ("text_id",)),
        (PairRules(same_speaker=True, same_text=True), ("speaker", "text_id")),
    ):
        shared = tuple(f for f in shared if kind == "prosody" or f != "text_id")
        built, told, dropped = build_pairs(clips, kind, rules, seed=seed)
        expected = all_pairs(clips, kind, shared)
        assert sorted(ids(built)) == sorted(expected) and told == " and ".join((SAME[kind], *shared))
        assert sum(dropped.values()) == len(all_pairs(clips, kind, ())) - len(expected)
        assert all(p.target == getattr(p.donor, OTHER[kind]) for p in built) and len({p.pair_id for p in built}) == len(built)
        if "" not in {c.speaker for c in clips} or "speaker" not in shared:
            assert count_pairs(clips, (SAME[kind], *shared), OTHER[kind]) == len(expected)


@pytest.mark.parametrize("kind", ["semantic", "prosody"])
def test_a_draw_takes_equally_many_of_each_pair_of_labels(kind: str) -> None:
    clips = some_clips(300, 0, speakers=("a", "b"))
    rules = PairRules(same_speaker=True, same_text=False, max_pairs=400)
    built, _, dropped = build_pairs(clips, kind, rules, seed=3)
    everything, _, _ = build_pairs(clips, kind, PairRules(same_speaker=True, same_text=False), seed=3)
    counts = Counter((getattr(p.recipient, OTHER[kind]), p.target) for p in built)
    assert set(counts.values()) == {20} and len(counts) == 20 and len(set(built)) == 400 and set(built) <= set(everything)
    assert dropped["over --max-pairs"] == len(everything) - 400
    assert len({p.recipient for p in built}) > 150  # drawn over all of them, not the first ones


def test_a_pair_of_labels_that_is_rare_leaves_its_share_to_the_others() -> None:
    clips = [
        sample("happy", p, text="t", name=f"{p}{i}") for p, n in (("sad", 1), ("angry", 10), ("neutral", 10)) for i in range(n)
    ]
    built, _, _ = build_pairs(clips, "prosody", PairRules(max_pairs=60), seed=0)
    counts = Counter((p.recipient.prosody_label, p.target) for p in built)
    assert len(built) == 60 and counts["sad", "angry"] == counts["neutral", "sad"] == 10 and counts["angry", "neutral"] == 10
    built, _, _ = build_pairs(clips, "prosody", PairRules(max_pairs=100), seed=0)
    counts = Counter((p.recipient.prosody_label, p.target) for p in built)
    assert len(built) == 100 and counts["sad", "angry"] == 10 and counts["angry", "neutral"] == counts["neutral", "angry"] == 30


@pytest.mark.parametrize("most", [1, 2, 5, 1000])
def test_pairs_per_recipient(most: int) -> None:
    clips = some_clips(200, 1, speakers=("a", "b"))
    everything, _, _ = build_pairs(clips, "prosody", PairRules(same_speaker=True, same_text=False), seed=0)
    built, _, dropped = build_pairs(
        clips, "prosody", PairRules(same_speaker=True, same_text=False, pairs_per_recipient=most), seed=0
    )
    able = Counter(p.recipient.sample_id for p in everything)
    assert Counter(p.recipient.sample_id for p in built) == Counter({i: min(most, n) for i, n in able.items()})
    assert len(set(built)) == len(built) and dropped["over --pairs-per-recipient"] == len(everything) - len(built)
    if most == 2:  # of different labels wherever there are two
        targets = {i: {p.target for p in everything if p.recipient.sample_id == i} for i in able}
        assert all(len({p.target for p in built if p.recipient.sample_id == i}) == min(2, len(t)) for i, t in targets.items())


def test_equal_length_is_within_what_is_said(tmp_path: Path) -> None:
    clips = []
    for i, frames in enumerate((8000, 8000, 8001, 8160, 9000)):
        soundfile.write(tmp_path / f"{i}.wav", np.full(frames, 0.1), 16_000)
        made = sample("happy", LABELS[i], name=f"{i}")
        clips.append(Sample(made.sample_id, tmp_path / f"{i}.wav", *(getattr(made, f) for f in made.__slots__[2:])))
    for tolerance, expected in ((0.0, {"01"}), (0.0001, {"01", "02", "12"}), (0.01, {"01", "02", "12", "03", "13", "23"})):
        built, _, dropped = build_pairs(clips, "prosody", PairRules(equal_length=tolerance), seed=0)
        assert {"".join(sorted(pair)) for pair in ids(built)} == expected and len(built) == 2 * len(expected)
        assert dropped == {"another length": 20 - len(built)}
    with pytest.raises(NoPairs, match=r"no prosody pairs among 2 clips: .* within 0 s of each other in length"):
        build_pairs([clips[0], clips[4]], "prosody", PairRules(equal_length=0), seed=0)


def test_what_is_asked_for_is_not_let_go() -> None:
    clips = [sample("happy", "sad", speaker="x"), sample("happy", "angry", speaker="y")]
    with pytest.raises(NoPairs, match="no two have the same semantic_label, differ in prosody_label and share the speaker"):
        build_pairs(clips, "prosody", PairRules(same_speaker=True), seed=0)
    unknown = [sample("happy", "sad", speaker=""), sample("happy", "angry", speaker="")]
    built, shared, _ = build_pairs(unknown, "prosody", PairRules(), seed=0)
    assert len(built) == 2 and shared == "semantic_label"  # two clips of nobody are not of the same speaker


def test_a_large_set_is_drawn_from_without_listing_its_pairs() -> None:
    clips = some_clips(20_000, 2, speakers=("a",))
    built, _, dropped = build_pairs(clips, "semantic", PairRules(max_pairs=2000), seed=0)
    assert len(set(built)) == 2000 and dropped["over --max-pairs"] > 50_000_000


def test_listed_pairs(tmp_path: Path) -> None:
    clips = [sample("happy", "sad", name="1"), sample("happy", "angry", name="2"), sample("sad", "angry", name="3")]
    path = tmp_path / "pairs.csv"

    def listed(text: str, kind: str = "prosody") -> list:
        path.write_text(f"kind,recipient_id,donor_id,control,layer\n{text}")
        return listed_pairs(path, clips, kind)

    rows = "prosody,1,2,none,0\nprosody,1,2,none,1\nsemantic,3,2,none,0\nprosody,1,3,silence,0\nprosody,2,1,,0\n"
    assert ids(listed(rows)) == [("1", "2"), ("2", "1")] and ids(listed(rows, "semantic")) == [("3", "2")]
    for text, message in (
        ("prosody,1,9,none,0\n", "row 2, column donor_id: the run has no clip '9'"),
        ("prosody,1,2,none,0\nvoice,1,2,none,0\n", "row 3, column kind: 'voice'; allowed: semantic, prosody"),
        ("prosody,1,3,none,0\n", "row 2: the two clips of a prosody pair have the same semantic_label and differ in prosody"),
        ("prosody,1,1,none,0\n", "row 2: the two clips"),
        ("semantic,3,2,none,0\n", "lists no prosody pairs"),
        ("prosody,1\n", "row 2: has 2 fields, the header has 5"),
    ):
        with pytest.raises(InputError, match=message):
            listed(text)


def labels_of(clip: Sample) -> tuple[str, str]:
    return clip.semantic_label, clip.prosody_label


def test_controls_stand_beside_their_pair_and_keep_its_target() -> None:
    clips = some_clips(300, 4, speakers=("a", "b"))
    pairs, _, _ = build_pairs(clips, "prosody", PairRules(max_pairs=40), seed=0)
    by_id = {p.pair_id: p for p in pairs}
    for control in ("same_labels_donor", "same_text_donor", "silence", "whole"):
        found = control_pairs(pairs, clips, control, seed=0)
        assert found and {p.control for p in found} == {control}
        for p in found:
            true = by_id[p.true_pair_id]
            assert p.recipient == true.recipient and p.target == true.target and p.pair_id != true.pair_id
            if control in ("silence", "whole"):
                assert p.donor == true.donor
            else:
                assert p.donor != p.recipient and p.donor.semantic_label == p.recipient.semantic_label
                assert p.donor.prosody_label == p.recipient.prosody_label != p.target
                others = [c for c in clips if c != p.recipient and c.speaker == p.recipient.speaker]
                alike = [c for c in others if labels_of(c) == labels_of(p.recipient)]
                assert control != "same_labels_donor" or not alike or p.donor in alike
            if control == "same_text_donor":
                assert p.donor.text_id == p.recipient.text_id
    assert len(control_pairs(pairs, clips, "silence", seed=0)) == len(pairs)
    some = control_pairs(pairs, clips, "silence", most=7, seed=0)
    places = [pairs.index(by_id[p.true_pair_id]) for p in some]
    assert len(some) == 7 and max(places) > 20  # drawn over all of them, not the first ones


def test_a_donor_that_the_clips_do_not_have_is_left_out() -> None:
    clips = [sample("happy", "sad", text="1"), sample("happy", "angry", text="1"), sample("happy", "sad", text="2")]
    pairs = [Pair("prosody", clips[0], clips[1]), Pair("prosody", clips[1], clips[0])]
    assert [p.donor for p in control_pairs(pairs, clips, "same_labels_donor", seed=0)] == [clips[2]]
    assert control_pairs(pairs, clips, "same_text_donor", seed=0) == []


def test_pairs_that_name_every_label_lack_third_labels() -> None:
    pairs = [
        Pair("prosody", sample("happy", "sad"), sample("happy", "angry")),
        Pair("prosody", sample("sad", "sad"), sample("sad", "angry")),
    ]
    assert lacking_third_labels(pairs, ("happy", "sad", "angry")) == 0.5
    assert lacking_third_labels(pairs, ("happy", "sad", "angry", "neutral")) == 0
    assert lacking_third_labels(pairs, ("sad", "angry")) == 1


def sample(semantic: str, prosody: str, *, text: str = "t", speaker: str = "s", name: str = "") -> Sample:
    return Sample(name or f"{semantic}-{prosody}-{text}-{speaker}", Path("x.wav"), "", text, semantic, prosody, speaker, "en", "")


def test_read_manifest(manifest: Path) -> None:
    samples = read_manifest(manifest)
    assert len(samples) == 100 and sum(s.conflict for s in samples) == 80
    assert samples[1].prosody_label == "happy" and samples[1].audio.is_file()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"semantic_label": "furious"}, "row 2, column semantic_label: unknown label 'furious'; allowed: neutral, happy"),
        ({"prosody_label": ""}, "row 2, column prosody_label: empty"),
        ({"audio": "gone.wav"}, "row 2, column audio: no such file"),
        ({"sample_id": " "}, "row 2, column sample_id: empty"),
        ({"sample_id": "two"}, "row 3, column sample_id: 'two' is already in row 2"),
    ],
)
def test_a_wrong_manifest_row_is_named(change: dict[str, str], message: str, tmp_path: Path) -> None:
    (tmp_path / "a.wav").touch()
    good = dict(zip(COLUMNS, ("one", "a.wav", "Hello.", "t", "happy", "sad", "s", "en", "me")))
    rows = [tuple((good | change).values()), tuple((good | {"sample_id": "two"}).values())]
    with pytest.raises(InputError, match=message):
        read_manifest(save_manifest(tmp_path / "m.csv", rows))


def test_a_wrong_manifest_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone.csv: no such manifest"):
        read_manifest(tmp_path / "gone.csv")
    with pytest.raises(InputError, match="no rows"):
        read_manifest(save_manifest(tmp_path / "empty.csv", []))
    with pytest.raises(InputError, match="column text_id is missing"):
        read_manifest(save_manifest(tmp_path / "short.csv", [], columns=tuple(c for c in COLUMNS if c != "text_id")))
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not a readable UTF-8 CSV"):
        read_manifest(tmp_path / "binary.csv")


def test_conflict_clips_says_what_it_dropped() -> None:
    kept, dropped = conflict_clips([sample("happy", "sad"), sample("sad", "sad")])
    assert [s.prosody_label for s in kept] == ["sad"] and dropped == {"congruent": 1}
    with pytest.raises(InputError, match="no conflict clips among 1"):
        conflict_clips([sample("sad", "sad")])


def test_pairs_let_go_of_text_and_speaker_only_where_the_data_has_none() -> None:
    two_texts = [sample("happy", "sad", text="1"), sample("happy", "angry", text="2")]
    pairs, shared, _ = build_pairs(two_texts, "prosody", PairRules(max_pairs=None), seed=0)
    assert len(pairs) == 2 and shared == "semantic_label and speaker"
    two_speakers = [sample("happy", "sad", text="1", speaker="x"), sample("happy", "angry", text="1", speaker="y")]
    pairs, shared, _ = build_pairs(two_speakers, "prosody", PairRules(max_pairs=None), seed=0)
    assert len(pairs) == 2 and shared == "semantic_label"
    with pytest.raises(InputError, match="no semantic pairs among 2 clips"):
        build_pairs(two_texts, "semantic", PairRules(max_pairs=None), seed=0)


def test_pairs_are_drawn_by_the_seed_and_counted(manifest: Path) -> None:
    clips, _ = conflict_clips(read_manifest(manifest))
    some, _, dropped = build_pairs(clips, "prosody", PairRules(max_pairs=50), seed=1)
    assert len(set(some)) == 50 and dropped == {"another speaker": 480, "another text": 240, "over --max-pairs": 190}
    again, other = (build_pairs(clips, "prosody", PairRules(max_pairs=50), seed=seed)[0] for seed in (1, 2))
    assert some == again != other


def test_draw_keeps_the_order() -> None:
    drawn = draw(list(range(100)), 10, seed=0)
    assert len(set(drawn)) == 10 and drawn == sorted(drawn)
    assert draw([1, 2], None, seed=0) == draw([1, 2], 5, seed=0) == [1, 2]
