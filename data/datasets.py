"""The file names and labels of eleven public data sets.

A clip's fields are the named groups of the pattern that its path matches and, where the set has a table of its clips, the columns
of its row there. Patterns were written from complete lists of file names; where a table is read, from its header.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

Fields = Mapping[str, str]
Made = str | Callable[[Fields], str]  # "{speaker}-{sentence}", or a function where that is not enough

# What feelings are called in tables and lists of labels, and what they are called here.
WORDS = {
    **dict.fromkeys(("neutral", "neu"), "neutral"),
    **dict.fromkeys(("happy", "happiness", "hap", "joy"), "happy"),
    **dict.fromkeys(("sad", "sadness"), "sad"),
    **dict.fromkeys(("angry", "anger", "ang"), "angry"),
    **dict.fromkeys(("surprised", "surprise", "pleasant_surprise", "pleasantly surprised", "pleasant surprise"), "surprised"),
    **dict.fromkeys(("fear", "fearful", "fea"), "fearful"),
    **dict.fromkeys(("disgust", "disgusted", "dis"), "disgusted"),
    **dict.fromkeys(("excited", "excitement"), "excited"),
    **dict.fromkeys(("frustrated", "frustration", "frustated"), "frustrated"),  # the last as LISTEN has it
    **dict.fromkeys(("amused", "amusement"), "amused"),
    **dict.fromkeys(("annoyed", "annoyance"), "annoyed"),
    **dict.fromkeys(("concerned", "concern"), "concerned"),
    **dict.fromkeys(("confused", "confusion"), "confused"),
    **dict.fromkeys(("disappointed", "disappointment"), "disappointed"),
    **dict.fromkeys(("contemptuous", "contempt"), "contemptuous"),
    **{word: word for word in ("calm", "bored", "anxious", "ridicule", "positive", "negative")},
}
SPLIT = r"[^/]*(?P<split>train|dev|test)[^/]*"


@dataclass(frozen=True)
class Dataset:
    """One data set. `files` is matched with the end of a clip's path, the given folder's own name before it and no suffix behind.

    `semantic` and `prosody` give what `labels` knows; a `semantic` without a field is the label itself, where all words are of
    one, and an empty one means that nobody has labelled the words. `table` matches the names of tables of clips, `join` names the
    fields that a clip's path and its row have in common; `needed`: a clip without a row is left out. `fallback` is the encoding
    of a table that is not in Unicode. `keep`: only clips with one of these values. `same_audio`: some recordings have several
    ids. `note` is said after an import.
    """

    files: str
    prosody: Made
    semantic: Made
    text_id: Made
    speaker: Made
    language: Made
    labels: Mapping[str, str]
    sample_id: Made = "{file}"
    text: Made = ""
    source: Made = ""
    table: str = ""
    join: tuple[str, ...] = ()
    needed: bool = True
    fallback: Callable[[str], str] = lambda name: "cp1252"
    keep: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    same_audio: bool = False
    note: str = ""


def among(field: str, values: Mapping[str, str]) -> Callable[[Fields], str]:
    """Return a function that looks a field up; what is not there is left as it is."""
    return lambda fields: values.get(fields[field], fields[field])


ESD_TEXTS = 350  # each in five emotions: Neutral 1-350, Angry 351-700, Happy 701-1050, Sad 1051-1400, Surprise 1401-1750


def esd_language(fields: Fields) -> str:
    return "zh" if int(fields["speaker"]) <= 10 else "en"


def esd_text_id(fields: Fields) -> str:
    return f"{esd_language(fields)}_{(int(fields['number']) - 1) % ESD_TEXTS + 1:03d}"


CREMA_D_TEXTS = {
    "IEO": "It's eleven o'clock.",
    "TIE": "That is exactly what happened.",
    "IOM": "I'm on my way to the meeting.",
    "IWW": "I wonder what this is about.",
    "TAI": "The airplane is almost full.",
    "MTI": "Maybe tomorrow it will be cold.",
    "IWL": "I would like a new alarm clock.",
    "ITH": "I think I have a doctor's appointment.",
    "DFA": "Don't forget a jacket.",
    "ITS": "I think I've seen this before.",
    "TSI": "The surface is slick.",
    "WSI": "We'll stop in a couple of minutes.",
}
RAVDESS_TEXTS = {"01": "Kids are talking by the door.", "02": "Dogs are sitting by the door."}
EMODB_TEXTS = {
    "a01": "Der Lappen liegt auf dem Eisschrank.",
    "a02": "Das will sie am Mittwoch abgeben.",
    "a04": "Heute abend könnte ich es ihm sagen.",
    "a05": "Das schwarze Stück Papier befindet sich da oben neben dem Holzstück.",
    "a07": "In sieben Stunden wird es soweit sein.",
    "b01": "Was sind denn das für Tüten, die da unter dem Tisch stehen?",
    "b02": "Sie haben es gerade hochgetragen und jetzt gehen sie wieder runter.",
    "b03": "An den Wochenenden bin ich jetzt immer nach Hause gefahren und habe Agnes besucht.",
    "b09": "Ich will das eben wegbringen und dann mit Karl was trinken gehen.",
    "b10": "Die wird auf dem Platz sein, wo wir sie immer hinlegen.",
}

DATASETS = {
    "EMIS": Dataset(
        files=r"(?P<idx>\d{2})_(?P<words>[a-z]+?)(?:_(?P<how>explicit|implicit))?_(?P<voice>[a-z]+)_(?P<speaker>\d{4})_(?P<tts>[A-Z0-9]+)",
        semantic="{words}",
        prosody="{voice}",
        text_id=lambda f: "_".join(filter(None, (f["words"], f["how"], f["idx"]))),  # idx alone repeats
        speaker="{speaker}",
        language="en",
        source="EMIS {tts}",
        labels={word: word for word in ("neutral", "happy", "sad", "angry")},
        note="a speaker has another voice in each of the three speech synthesisers; `source` names them",
    ),
    "CREMA-ASIS": Dataset(
        files=r"(?P<output_name>[^/]+)",
        table=r".*\.csv",
        join=("output_name",),
        semantic="{semantic}",
        prosody="{acoustic}",
        text="{output_text}",
        text_id="{output_text}",
        speaker="{ActorID}",
        language="en",
        labels=WORDS,
        note="its words are labelled by sentiment; --rename positive=happy negative=angry would make feelings of them",
    ),
    "LISTEN": Dataset(
        files=r"(?P<file_name>[^/]+)",
        table=r"metadata\.csv",
        join=("file_name",),
        keep={
            "experiment_type": ("1", "2B", "3B")
        },  # neutral, matching and contrary words; A asks about the text alone, 4 has none
        sample_id="{id}",
        semantic="{explicit_emotion}",
        prosody="{answer}",
        text="{transcription}",
        text_id="{transcription}",
        speaker="",
        language="en",
        source="LISTEN {dataset_source}",
        labels=WORDS,
        same_audio=True,
    ),
    "ESD": Dataset(
        files=r"(?P<speaker>00(?:0[1-9]|1\d|20))/(?P<feeling>[^/]+)/(?:(?:train|test|evaluation)/)?(?P=speaker)_(?P<number>\d{6})",
        table=r"00\d\d\.txt",
        join=("file",),
        needed=False,  # of the text alone
        fallback=lambda name: "gb18030" if int(name[:4]) <= 10 else "latin-1",
        semantic="",
        prosody="{feeling}",
        text="{text}",
        text_id=esd_text_id,
        speaker="{speaker}",
        language=esd_language,
        labels={"Neutral": "neutral", "Happy": "happy", "Sad": "sad", "Angry": "angry", "Surprise": "surprised"},
    ),
    "RAVDESS": Dataset(
        files=r"(?P<mode>\d\d)-(?P<channel>\d\d)-(?P<feeling>\d\d)-\d\d-(?P<statement>\d\d)-\d\d-(?P<actor>\d\d)",
        keep={"mode": ("03",), "channel": ("01",)},  # audio alone, speech
        semantic="neutral",
        prosody="{feeling}",
        text=among("statement", RAVDESS_TEXTS),
        text_id="{statement}",
        speaker="{actor}",
        language="en",
        labels={
            **{"01": "neutral", "02": "calm", "03": "happy", "04": "sad"},
            **{"05": "angry", "06": "fearful", "07": "disgusted", "08": "surprised"},
        },
    ),
    "CREMA-D": Dataset(
        files=r"(?P<actor>1\d{3})_(?P<sentence>[A-Z]{3})_(?P<feeling>[A-Z]{3})_(?:LO|MD|HI|XX|X)",
        semantic="neutral",
        prosody="{feeling}",
        text=among("sentence", CREMA_D_TEXTS),
        text_id="{sentence}",
        speaker="{actor}",
        language="en",
        labels={"NEU": "neutral", "HAP": "happy", "SAD": "sad", "ANG": "angry", "FEA": "fearful", "DIS": "disgusted"},
    ),
    "TESS": Dataset(
        files=r"(?P<speaker>OAF|YAF|OA)_(?P<word>[A-Za-z]+)_(?P<feeling>[A-Za-z]+)",
        semantic="neutral",
        prosody="{feeling}",
        text="Say the word {word}.",
        text_id=lambda f: f["word"].lower(),
        speaker=among("speaker", {"OA": "OAF"}),  # two hundred names of one actress have lost a letter
        language="en",
        labels={
            **{"neutral": "neutral", "happy": "happy", "sad": "sad", "angry": "angry", "ps": "surprised"},
            **{"fear": "fearful", "disgust": "disgusted"},
        },
    ),
    "SAVEE": Dataset(
        files=r"(?P<speaker>DC|JE|JK|KL)[/_](?P<feeling>[a-z]{1,2})(?P<number>\d{2})",
        sample_id="{speaker}_{feeling}{number}",
        semantic="",  # of each feeling's 15 sentences some were chosen to suit it
        prosody="{feeling}",
        text_id="{feeling}{number}",  # three sentences are the same in all, which the names do not tell
        speaker="{speaker}",
        language="en",
        labels={"n": "neutral", "h": "happy", "sa": "sad", "a": "angry", "su": "surprised", "f": "fearful", "d": "disgusted"},
    ),
    "EmoDB": Dataset(
        files=r"(?P<speaker>\d{2})(?P<sentence>[ab]\d{2})(?P<feeling>[A-Z])[a-f]",
        semantic="neutral",
        prosody="{feeling}",
        text=among("sentence", EMODB_TEXTS),
        text_id="{sentence}",
        speaker="{speaker}",
        language="de",
        labels={
            **{"N": "neutral", "F": "happy", "T": "sad", "W": "angry"},
            **{"A": "fearful", "E": "disgusted", "L": "bored"},
        },
    ),
    "nEMO": Dataset(
        files=r"(?P<file_id>[A-Z]{2}\d+_[a-z]+_\d+)",
        table=r"data\.tsv",
        join=("file_id",),
        semantic="",
        prosody="{emotion}",
        text="{raw_text}",
        text_id="{raw_text}",
        speaker="{speaker_id}",
        language="pl",
        labels=WORDS,
    ),
    "MELD": Dataset(
        files=SPLIT + r"/(?:[^/]+/)*dia(?P<Dialogue_ID>\d+)_utt(?P<Utterance_ID>\d+)",
        table=r"(?P<split>train|dev|test)_sent_emo\.csv",
        join=("split", "Dialogue_ID", "Utterance_ID"),
        sample_id="{split}_dia{Dialogue_ID}_utt{Utterance_ID}",
        semantic="",
        prosody="{Emotion}",
        text="{Utterance}",
        text_id="{Utterance}",
        speaker="{Speaker}",
        language="en",
        labels=WORDS,
        note="its Emotion was annotated with the pictures: as the voice's label it is a stand-in",
    ),
}


def made(template: Made, fields: Fields) -> str:
    return template.format_map(fields) if isinstance(template, str) else template(fields)


def tidy(text: str) -> str:
    """Return a text in one line, with the signs of Windows' code page that some tables hold as control characters."""
    text = re.sub("[\x80-\x9f]", lambda m: m[0].encode("latin-1").decode("cp1252", errors="replace"), text)
    return " ".join(re.sub("[\x00-\x1f\x7f]", " ", text).split())


def clip_pattern(dataset: Dataset) -> re.Pattern[str]:
    return re.compile(rf"(?:.*/)?{dataset.files}", re.DOTALL)
