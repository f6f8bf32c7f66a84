"""Each data set's tree with its real names and short clips: the manifest comes out right to the row."""

import csv
from pathlib import Path

import numpy as np
import pytest
import soundfile

from common.clips.manifest import LABELS, read_manifest
from data.datasets import DATASETS, WORDS
from data.import_dataset import main

SPEECH = Path(__file__).resolve().parents[3] / "shared" / "speech"


def tree(folder: Path, files: dict[str, str | bytes | int]) -> Path:
    """Write files below `folder`: text or bytes as they are, for a number a short clip that it alone has."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            path.write_text(content, encoding="utf-8")
        elif isinstance(content, bytes):
            path.write_bytes(content)
        else:
            wave = np.random.default_rng(content).uniform(-0.3, 0.3, (2000, 2 if content % 2 else 1))  # some are stereo
            soundfile.write(path, wave, 16_000)
    return folder


def imported(name: str, folder: Path, *more: str) -> dict[str, tuple[str, ...]]:
    """Return labels, text id, speaker and language of each clip in the manifest, which the experiments can read."""
    out = folder.parent / "manifests" / "m.csv"
    out.parent.mkdir(exist_ok=True)
    main([name, str(folder), "--out", str(out), "--overwrite", *more])
    samples = read_manifest(out, None)
    assert all(s.audio.is_file() and folder.resolve() in s.audio.resolve().parents for s in samples)
    return {s.sample_id: (s.semantic_label, s.prosody_label, s.text_id, s.speaker, s.language) for s in samples}


def refused(capsys: pytest.CaptureFixture, *arguments: str) -> str:
    with pytest.raises(SystemExit, match="2"):
        main(list(arguments))
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1
    return said


def left_out(capsys: pytest.CaptureFixture, *lines: str) -> None:
    """Assert that each line is told to be left out."""
    said = capsys.readouterr().out
    assert not [line for line in lines if f"left out: {line}\n" not in f"{said}\n"]


def labels_file(folder: Path, labels: dict[str, str]) -> str:
    path = folder.parent / "labels.csv"
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text_id", "semantic_label"), *labels.items()])
    return str(path)


def test_emis(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    names = ("01_happy_explicit_sad_0011_STYLE", "01_happy_implicit_happy_0020_COSY", "02_neutral_angry_0015_F5TTS")
    folder = tree(tmp_path / "EMIS", {f"wavs/{n}.wav": i for i, n in enumerate(names)} | {"README.md": "x", "wavs/noise.wav": 9})
    assert imported("EMIS", folder) == {
        names[0]: ("happy", "sad", "happy_explicit_01", "0011", "en"),
        names[1]: ("happy", "happy", "happy_implicit_01", "0020", "en"),
        names[2]: ("neutral", "angry", "neutral_02", "0015", "en"),
    }
    said = capsys.readouterr().out
    assert "left out: 1 named otherwise, such as wavs/noise.wav" in said and "3 clips of EMIS" in said and "note: " in said
    assert {s.source for s in read_manifest(tmp_path / "manifests" / "m.csv")} == {"EMIS STYLE", "EMIS COSY", "EMIS F5TTS"}


def test_ravdess_also_where_a_download_holds_it_twice(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    names = [f"03-01-{feeling:02d}-01-01-01-07" for feeling in range(1, 9)]
    files = {f"Actor_07/{n}.wav": i for i, n in enumerate(names)} | {"Actor_07/03-02-03-01-01-01-07.wav": 20}
    files |= {f"audio_speech_actors_01-24/{name}": i for name, i in files.items()} | {"Actor_07/._03-01-01-01-01-01-07.wav": "x"}
    folder = tree(
        tmp_path / "RAVDESS", files | {"Actor_07/03-01-03-02-02-02-07.flac": 30, "Actor_07/01-01-03-01-01-01-07.mp4": "x"}
    )
    found = imported("RAVDESS", folder)
    kept = {names[0]: "neutral", names[2]: "happy", names[3]: "sad", names[4]: "angry", names[7]: "surprised"}
    assert found == {n: ("neutral", label, "01", "07", "en") for n, label in kept.items()} | {
        "03-01-03-02-02-02-07": ("neutral", "happy", "02", "07", "en")
    }
    left_out(capsys, "5 the same clip again", "2 voice calm", "2 voice fearful", "2 voice disgusted", "2 channel 02")
    assert imported("RAVDESS", folder, "--rename", "calm=neutral")[names[1]] == ("neutral", "neutral", "01", "07", "en")
    assert len(imported("RAVDESS", folder, "--labels", "neutral", "sad", "calm")) == 3
    assert "no clip of RAVDESS" in refused(
        capsys, "RAVDESS", str(folder), "--labels", "sad", "calm", "--out", str(tmp_path / "x.csv")
    )


def test_crema_d_tess_emodb(tmp_path: Path) -> None:
    folder = tree(
        tmp_path / "CREMA-D",
        {"AudioWAV/1001_DFA_ANG_XX.wav": 0, "AudioWAV/1040_ITH_SAD_X.wav": 1, "AudioWAV/1076_IEO_FEA_LO.wav": 2},
    )
    assert imported("CREMA-D", folder) == {
        "1001_DFA_ANG_XX": ("neutral", "angry", "DFA", "1001", "en"),
        "1040_ITH_SAD_X": ("neutral", "sad", "ITH", "1040", "en"),
    }
    files = {"OAF_angry/OAF_back_angry.wav": 0, "OAF_neutral/OA_bite_neutral.wav": 1, "YAF_pleasant_surprised/YAF_back_ps.wav": 2}
    assert imported("TESS", tree(tmp_path / "TESS", files | {"YAF_fear/YAF_back_fear.wav": 3})) == {
        "OAF_back_angry": ("neutral", "angry", "back", "OAF", "en"),
        "OA_bite_neutral": ("neutral", "neutral", "bite", "OAF", "en"),
        "YAF_back_ps": ("neutral", "surprised", "back", "YAF", "en"),
    }
    folder = tree(tmp_path / "emodb", {"wav/03a01Fa.wav": 0, "wav/16b10Wb.wav": 1, "wav/03a02Lc.wav": 2, "wav/08a07Td.WAV": 3})
    assert imported("emodb", folder) == {
        "03a01Fa": ("neutral", "happy", "a01", "03", "de"),
        "16b10Wb": ("neutral", "angry", "b10", "16", "de"),
        "08a07Td": ("neutral", "sad", "a07", "08", "de"),
    }


def test_savee_as_released_and_in_one_folder(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for name, files in (("a", ("AudioData/DC/sa01", "AudioData/KL/su15")), ("b", ("ALL/DC_sa01", "ALL/KL_su15"))):
        folder = tree(tmp_path / name, {f"{f}.wav": i for i, f in enumerate(files)})
        assert "the words of SAVEE are not labelled: --semantic-labels" in refused(capsys, "SAVEE", str(folder))
        words = labels_file(folder, {"sa01": "neutral", "su15": "joy", "h01": "happy"})
        assert imported("SAVEE", folder, "--semantic-labels", words) == {
            "DC_sa01": ("neutral", "sad", "sa01", "DC", "en"),
            "KL_su15": ("happy", "surprised", "su15", "KL", "en"),
        }


def test_esd_with_its_encodings(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    files: dict[str, str | bytes | int] = {
        "0001/Angry/0001_000351.wav": 0,
        "0001/Neutral/train/0001_000001.wav": 1,
        "0001/0001.txt": "0001_000001\t打远一看，\t中立\n0001_000351\t打远一看，\t生气\n".encode("gb18030"),
        "0011/Surprise/evaluation/0011_001401.wav": 2,
        "0011/0011.txt": "0011_001401\tThe nine the eggs, I keep.\tSurprise\n".encode("utf-16"),
        "0016/Sad/0016_001400.wav": 3,
        "0016/0016.txt": "0016_001400   Caf\xe9s are open. Sad\r\n".encode("latin-1"),
        "0020/Happy/test/0020_000702.wav": 4,
    }
    folder = tree(tmp_path / "Emotion Speech Dataset", files)
    words = labels_file(folder, {"zh_001": "happy", "en_001": "neutral", "en_350": "angry"})
    assert imported("ESD", folder, "--semantic-labels", words) == {
        "0001_000001": ("happy", "neutral", "zh_001", "0001", "zh"),
        "0001_000351": ("happy", "angry", "zh_001", "0001", "zh"),
        "0011_001401": ("neutral", "surprised", "en_001", "0011", "en"),
        "0016_001400": ("angry", "sad", "en_350", "0016", "en"),
    }
    texts = {s.sample_id: s.text for s in read_manifest(tmp_path / "manifests" / "m.csv")}
    assert texts["0001_000351"] == "打远一看，" and texts["0016_001400"] == "Cafés are open."
    assert texts["0011_001401"] == "The nine the eggs, I keep."
    assert "left out: 1 words not labelled" in capsys.readouterr().out
    main(["ESD", str(folder), "--texts", str(tmp_path / "texts.csv")])
    with open(tmp_path / "texts.csv", encoding="utf-8", newline="") as file:
        assert [(r["text_id"], r["semantic_label"]) for r in csv.DictReader(file)] == [
            ("zh_001", ""), ("en_001", ""), ("en_350", ""), ("en_002", "")
        ]  # fmt: skip


NEMO = "file_id\temotion\traw_text\tnormalized_text\tspeaker_id\tgender\tage\n"


def test_nemo(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    rows = [
        "WR0_surprised_70.wav\tsurprised\tCzłowiek zaczyna umierać.\tx\t        WR0\tmale\t23",
        'KS0_anger_6.wav\tanger\t"Dziunia, ""nie""."\tx\tKS0\tmale\t23',
        "KS0_fear_6.wav\tfear\tChodźmy w tango.\tx\tKS0\tmale\t23",
        "KS0_sadness_7.wav\tsadness\t\tx\tKS0\tmale\t23",
        "KS0_neutral_8.wav\tneutral\tDzieci muszą dużo jeść.\tx\tKS0\tmale\t23",
    ]
    files = {f"samples/{row.split('.wav')[0]}.wav": i for i, row in enumerate(rows[:-1])} | {"samples/EB0_anger_99.wav": 9}
    folder = tree(tmp_path / "nEMO", files | {"data.tsv": NEMO + "\n".join(rows) + "\n", "notes.csv": "a,b\n1\n"})
    words = labels_file(folder, {"Człowiek  zaczyna umierać.": "sad", 'Dziunia, "nie".': "angry", "unused": ""})
    assert imported("nEMO", folder, "--semantic-labels", words) == {
        "WR0_surprised_70": ("sad", "surprised", "Człowiek zaczyna umierać.", "WR0", "pl"),
        "KS0_anger_6": ("angry", "angry", 'Dziunia, "nie".', "KS0", "pl"),
    }
    left_out(
        capsys,
        "1 voice fearful",
        "1 without a text",
        "1 in no table of clips",
        "1 in a table of clips, but no audio file is there",
    )
    (folder / "data.tsv").unlink()
    assert r"no table of clips is there: a file named data\.tsv with emotion, file_id, raw_text, speaker_id" in refused(
        capsys, "nEMO", str(folder)
    )


ASIS = "output_name,audio_path,ActorID,acoustic,semantic,sen_idx,output_text,wer\n"


def test_crema_asis(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    rows = [
        "1011_WSI_SAD_XX-sad-neutral-194.wav,1011_WSI_SAD_XX.wav,1011,sad,neutral,194,You have to spit.,0.05\n",
        '1025_ITS_HAP_XX-happy-negative-92.wav,1025_ITS_HAP_XX.wav,1025,happy,negative,92,"""She doesn\'t, understand.""",0.0\n',
        "1071_DFA_DIS_XX-disgust-neutral-2.wav,1071_DFA_DIS_XX.wav,1071,disgust,neutral,2,Hm.,0.0\n",
    ]
    names = [row.split(".wav")[0] for row in rows]
    files = {f"samples/{name}.wav": i for i, name in enumerate(names)}
    folder = tree(tmp_path / "asis", files | {"all.csv": ASIS + "".join(rows), "test.csv": ASIS + rows[0]})
    assert imported("CREMA-ASIS", folder) == {names[0]: ("neutral", "sad", "You have to spit.", "1011", "en")}
    left_out(capsys, "1 words negative", "1 voice disgusted", "1 the same clip again")
    both = imported("CREMA-ASIS", folder, "--rename", "negative=angry", "positive=happy")
    assert both[names[1]] == ("angry", "happy", '"She doesn\'t, understand."', "1025", "en")


LISTEN = "file_name,id,question,answer,explicit_emotion,transcription,experiment_type,dataset_source\n"


def test_listen_has_a_recording_once(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    rows = [
        "000000.wav,MELD_7,How?,anger,happiness,Oh great.,3B,MELD\n",
        "000001.wav,MELD_7_b,What?,anger,happiness,Oh great.,3B,MELD\n",  # the same audio under another id
        "000002.wav,TESS_1,How?,neutral,sadness,Say it.,2A,TESS\n",  # asks about the text
        "000003.wav,X_1,How?,pleasant_surprise,neutral,Well.,1,X\n",
        "000004.wav,X_2,How?,excitement,neutral,Yes.,2B,X\n",
        "000005.wav,X_3,How?,sadness,,No.,2B,X\n",  # no label of the words
        "000006.wav,X_4,How?,sadness,anger,No.,3B,X\n",
        "000007.wav,X_5,How?,happiness,anger,No.,3B,X\n",  # the audio of X_4, otherwise labelled
    ]
    waves = {0: 0, 1: 0, 2: 2, 3: 3, 4: 4, 5: 5, 6: 6, 7: 6}
    folder = tree(
        tmp_path / "LISTEN", {f"{i:06d}.wav": wave for i, wave in waves.items()} | {"metadata.csv": LISTEN + "".join(rows)}
    )
    assert imported("LISTEN", folder) == {
        "MELD_7": ("happy", "angry", "Oh great.", "", "en"),
        "X_1": ("neutral", "surprised", "Well.", "", "en"),
    }
    left_out(
        capsys,
        "1 the same audio under another id",
        "2 the same audio labelled in two ways",
        "1 experiment_type 2A",
        "1 voice excited",
        "1 words not labelled",
    )


MELD = "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime\n"


def test_meld_keeps_its_splits_apart(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    train = [
        '1,"Oh, you\x92re here.",Joey,surprise,positive,0,0,8,21,"00:16:16,059","00:16:21,731"\n',
        '2,No.,Phoebe,disgust,negative,0,1,8,21,"0","1"\n',
        '3,Gone.,Phoebe,anger,negative,125,3,8,21,"0","1"\n',  # of this one no file is whole
    ]
    files: dict[str, str | bytes | int] = {
        "train_sent_emo.csv": (MELD + "".join(train)).encode("cp1252", errors="replace").replace(b"you?re", b"you\x92re"),
        "dev_sent_emo.csv": MELD + '1,"Yes, ""sir"".",Ross,joy,positive,0,0,1,1,0,1\n',
        "test_sent_emo.csv": MELD + "1,Yeah.,Ross,neutral,neutral,0,0,1,1,0,1\n",
        "train_splits/dia0_utt0.wav": 0,
        "train_splits/dia0_utt1.wav": 1,
        "dev_splits_complete/dia0_utt0.flac": 2,
        "output_repeated_splits_test/dia0_utt0.mp3": 3,
        "output_repeated_splits_test/final_videos_testdia0_utt0.mp4": "x",
    }
    folder = tree(tmp_path / "MELD.Raw", files)
    words = labels_file(folder, {"Oh, you’re here.": "neutral", 'Yes, "sir".': "happy", "Yeah.": "neutral"})
    assert imported("MELD", folder, "--semantic-labels", words) == {
        "train_dia0_utt0": ("neutral", "surprised", "Oh, you’re here.", "Joey", "en"),
        "dev_dia0_utt0": ("happy", "happy", 'Yes, "sir".', "Ross", "en"),
        "test_dia0_utt0": ("neutral", "neutral", "Yeah.", "Ross", "en"),
    }
    said = capsys.readouterr().out
    assert "left out: 1 voice disgusted" in said and "left out: 1 in a table of clips, but no audio file is there" in said
    for file in folder.rglob("*.*"):
        if file.suffix in (".wav", ".flac", ".mp3"):
            file.rename(file.with_suffix(".mp4"))
    assert "is a video, whose sound has to be taken out first" in refused(capsys, "MELD", str(folder))


def test_unknown_strings_are_errors_with_file_and_field(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = tree(tmp_path / "r", {"03-01-09-01-01-01-07.wav": 0})
    said = refused(capsys, "RAVDESS", str(folder))
    assert "clip 03-01-09-01-01-01-07, field {feeling}: unknown label '09'; known: 01, 02" in said
    assert imported("RAVDESS", folder, "--rename", "09=happy")["03-01-09-01-01-01-07"][1] == "happy"
    rows = LISTEN + "a.wav,1,How?,anger,happiness,Oh.,3B,M\nb.wav,2,How?,bewildered,anger,Oh.,3B,M\n"
    folder = tree(tmp_path / "l", {"a.wav": 0, "b.wav": 2, "metadata.csv": rows})
    assert "metadata.csv, row 3, field {answer}: unknown label 'bewildered'" in refused(capsys, "LISTEN", str(folder))
    folder = tree(tmp_path / "s", {"DC/sa01.wav": 0})
    said = refused(capsys, "SAVEE", str(folder), "--semantic-labels", labels_file(folder, {"sa01": "furious"}))
    assert "row 2, column semantic_label: unknown label 'furious'; allowed: neutral" in said
    (tmp_path / "twice.csv").write_text("text_id,semantic_label\nsa01,sad\nsa01,happy\n")
    assert "row 3: 'sa01' has another label above" in refused(
        capsys, "SAVEE", str(folder), "--semantic-labels", str(tmp_path / "twice.csv")
    )


def test_two_clips_of_one_name_are_not_mixed_up(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = tree(tmp_path / "e", {"a/03a01Fa.wav": 0, "b/03a01Fa.wav": 1})
    assert "are not the same, and both are called '03a01Fa'" in refused(capsys, "EmoDB", str(folder))
    header, row = LISTEN, "000000.wav,{},How?,anger,happiness,Oh.,3B,M\n"
    files = {f"{part}/000000.wav": i for i, part in enumerate(("train", "test"))}
    folder = tree(tmp_path / "l", files | {f"{part}/metadata.csv": header + row.format(part) for part in ("train", "test")})
    assert "are not the same, and both are called '000000'; import one folder at a time" in refused(capsys, "LISTEN", str(folder))
    assert set(imported("LISTEN", folder / "train")) == {"train"}


def test_links_are_followed_once_and_nothing_is_changed(tmp_path: Path) -> None:
    folder = tree(tmp_path / "e", {"wav/03a01Fa.wav": 0})
    (folder / "wav" / "up").symlink_to(folder)
    (folder / "loop").symlink_to(folder / "loop")
    (folder / "03a02Wa.wav").symlink_to(folder / "gone.wav")
    tree(tmp_path / "elsewhere", {"03a02Wa.wav": 1})
    (folder / "more").symlink_to(tmp_path / "elsewhere")
    before = sorted(str(f) for f in tmp_path.rglob("*"))
    main(["EmoDB", str(folder), "--out", str(tmp_path / "m.csv")])
    assert {s.sample_id for s in read_manifest(tmp_path / "m.csv")} == {"03a01Fa", "03a02Wa"}
    assert sorted(str(f) for f in tmp_path.rglob("*") if "manifests" not in str(f) and f.name != "m.csv") == before


def test_what_is_no_folder_and_what_would_be_written_over(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert "no such folder" in refused(capsys, "EmoDB", str(tmp_path / "gone"))
    folder = tree(tmp_path / "e", {"03a01Fa.wav": 0, "x.txt": "x"})
    assert "none of its 1 audio files is named as in this data set; the first is 03a01Fa.wav" in refused(
        capsys, "TESS", str(folder)
    )
    out = tmp_path / "mine.csv"
    out.write_text("precious")
    assert "is there already" in refused(capsys, "EmoDB", str(folder), "--out", str(out)) and out.read_text() == "precious"
    assert "cannot be written" in refused(capsys, "EmoDB", str(folder), "--out", str(tmp_path / "gone" / "m.csv"))
    with pytest.raises(SystemExit, match="2"):
        main(["EmoDB", str(folder), "--rename", "calm"])


def test_every_set_has_labels_that_are_known_here() -> None:
    for dataset in DATASETS.values():
        assert set(dataset.labels.values()) <= set(WORDS.values()) and set(LABELS[:4]) <= set(dataset.labels.values())


@pytest.mark.skipif(not SPEECH.is_dir(), reason="no human recordings here")
def test_human_recordings(tmp_path: Path) -> None:
    main(["RAVDESS", str(SPEECH / "RAVDESS"), "--out", str(tmp_path / "r.csv")])
    samples = read_manifest(tmp_path / "r.csv")
    assert len(samples) == 144 and {s.speaker for s in samples} == {"01", "02", "03", "04"}
    main(["nEMO", str(SPEECH / "nEMO"), "--texts", str(tmp_path / "t.csv")])
    filled = (tmp_path / "t.csv").read_text(encoding="utf-8").replace(",\n", ",neutral\n").replace(",\r\n", ",neutral\r\n")
    (tmp_path / "t.csv").write_text(filled, encoding="utf-8")
    main(["nEMO", str(SPEECH / "nEMO"), "--semantic-labels", str(tmp_path / "t.csv"), "--out", str(tmp_path / "n.csv")])
    assert len(read_manifest(tmp_path / "n.csv")) == 225 and len({s.text_id for s in read_manifest(tmp_path / "n.csv")}) == 15
