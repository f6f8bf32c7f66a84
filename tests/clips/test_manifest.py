from pathlib import Path

import pytest

from common.clips.manifest import COLUMNS, Sample, conflict_clips, draw, read_manifest
from common.clips.pairs import PairRules, build_pairs
from common.errors import InputError
from tests.tiny_models.tiny import save_manifest


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
