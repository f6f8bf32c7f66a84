"""Generate the small model's training texts and their labels.

One vocabulary for all. One labelled sentence in five, with its variants, and one in five pairs of a feeling and a clause are
held out: never rendered for training. The demo's sentences lend their words to the salad and are never a training text; no
training text has four words in a row in common with one of them.
"""

import csv
import random
import re
import zlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from common.clips.manifest import LABELS
from data.making.sentences import DEMO

HELD_OUT_ONE_IN = 5
# Words that stand for one another in a sentence without changing its label.
CLASSES = [
    line.split()
    for line in """mother father sister brother uncle aunt cousin
grandma grandpa
husband wife
daughter son
neighbor teacher boss doctor waiter clerk
Monday Tuesday Wednesday Thursday Friday Saturday Sunday
morning evening afternoon
kitchen hallway bedroom bathroom garage
office library museum station bank hotel
two three four five six
seven eight nine ten eleven twelve
first second third fourth
blue green red yellow brown white
dog cat horse
bread milk cheese butter rice
desk table shelf bench
summer winter spring autumn
coat jacket hat scarf
book letter card paper
bus train car
apple pear cherry
cup plate bowl bottle glass
he she""".splitlines()
]
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
NAMES = ("I", *DAYS, "June", "July", "Japan", "Chinese", "French", "Latin")  # what keeps its capital
FEELINGS = {
    "neutral": "ready busy prepared early late",
    "happy": "happy joyful delighted thrilled glad cheerful pleased overjoyed",
    "sad": "sad miserable lonely heartbroken unhappy sorrowful depressed gloomy",
    "angry": "angry furious outraged mad enraged livid annoyed hateful",
    "surprised": "surprised amazed astonished stunned shocked startled speechless astounded",
}
NOUNS = {"happy": "joy happiness", "sad": "sorrow grief sadness", "angry": "rage anger fury", "surprised": "surprise amazement"}
SUBJECTS = (
    *("I am", "I was", "we are", "we were", "she is", "he is", "they are", "they were"),
    *("my friend is", "the boy was", "everyone is", "you are"),
)
DEGREES = ["", "", "so ", "very ", "really ", "quite "]
CLAUSES = """that we see you today|when she spoke about the plan|because of the letter|that they closed the school
about the news from home|when he opened the door|because the house is empty|to see you here|that you came back
about what happened last night|when I read your answer|because they all left|that it turned out this way
when the bus came|that we moved to the city|about our new boss|because it is snowing again|with the way you work
to hear about the baby|that the meeting is over|when we found the box|about this whole year|by what you said to her
to learn that he was gone|since her brother moved|that the train is here|for the first time this winter
when I think of the old days|that the cat is back|at what they did to us|because you told me everything
to be in this house again""".replace("\n", "|").split("|")
COMMON = """\
able across add air almost along among animal answer arm around ask away back bad ball bear beat bed began behind
believe below beside between big bird bit black boat body bone born both bottom break bridge bright bring brought build
burn buy call camp carry catch cause center chance change check child circle clear climb close cloud cold color come
cook cool copy corner count country course cover cross crowd cry cut dark deal deep die different dinner direct dream
dress drink drive drop dry during each ear earth east easy eat edge egg end enough even ever every eye face fact fall
family far farm fast father fear feel feet few field fight fill find fine finger finish fire fish fit floor flower fly
follow food foot force forest form forward free fresh fruit full fun game gave gift girl give glass gold good grass gray
great ground group grow guess hair half hand happen hard hear heat heavy help high hill hold hole hope hot hour huge
hurry hurt ice idea inside island job join jump just keep kept kill kind king knee know lady land large last late laugh
law lay lead learn least leave left leg less let lie lift light like line listen little live long look lost loud love
low luck machine make man many map mark market matter maybe mean meat meet middle might mile mind minute miss moment
money month moon more most mountain mouth move much music must name near neck need never next night noise north nose
nothing notice number ocean offer often oil old once only open order other outside own page pain pair part party pass
past path pay people perhaps person picture piece place plan plane plant play point poor power press price pull push put
question quick quiet quite rain ran reach read real red rest rich ride right ring rise road rock roll roof rope round
row run safe said sail salt same sand save saw scene sea season seat see seed seem sell send sense serve set seven shape
sharp shine ship short shoulder shout show side sight sign silver simple since sing sit size skin sleep slip slow small
smell smile smoke snow soft soil soldier some song soon sort sound south space speak speed spend spot stand star start
stay steel step stick still stone stop store storm story straight strange street strong such sudden sugar sun supper
sure surface swim table tail take talk tall taste team tell test than thank that their them then there thick thin thing
think this those thought thousand through throw time tiny tired today together tomorrow tonight tooth top touch toward
town travel tree trip trouble true trust try turn under until usual valley very village visit voice wait walk wall want
war warm wash watch water wave wear weather week weight well west wet what wheel when where which while white who whole
why wide wild will win wind window wing wish with woman wonder wood word work world worry worse worth write wrong yard
year yellow yes yesterday yet young your"""


def words_of(text: str) -> list[str]:
    """Return the words of `text` in lower case but for NAMES; of the apostrophes only those inside words stay."""
    capital = {name.lower(): name for name in NAMES}
    return [capital.get(w, w) for w in re.findall(r"[a-z]+(?:'[a-z]+)?", text.lower())]


def plain(text: str) -> str:
    """Return `text` as the model shall hear it: lower case but for NAMES, no marks, a blank before every word."""
    return "".join(f" {w}" for w in words_of(text))


def near_demo(text: str, run: int = 4) -> bool:
    """Return whether `text` has `run` words in a row in common with a sentence of the demo."""
    words = words_of(text)
    return any(tuple(words[i : i + run]) in _demo_runs(run) for i in range(len(words) - run + 1))


@cache
def _demo_runs(run: int) -> set[tuple[str, ...]]:
    demo = [words_of(text) for texts in DEMO.values() for text in texts]
    return {tuple(words[i : i + run]) for words in demo for i in range(len(words) - run + 1)}


def written() -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Return (trained, held out) lists of (text, label): the labelled sentences of sentences.csv."""
    rows = _read("sentences.csv")
    held = [i % HELD_OUT_ONE_IN == 2 for i in range(len(rows))]
    return [r for r, h in zip(rows, held) if not h], [r for r, h in zip(rows, held) if h]


def _read(name: str) -> list[tuple[str, str]]:
    with open(Path(__file__).with_name(name), newline="", encoding="utf-8") as file:
        return [(row["text"], row["label"]) for row in csv.DictReader(file)]


def vary(text: str, rng: random.Random) -> str:
    """Return `text` with some of its words exchanged for others of their class."""
    out = []
    for token in text.split():
        bare = token.rstrip(".,")
        for members in CLASSES:
            if bare in members and rng.random() < 0.7:
                token = rng.choice(members) + token[len(bare) :]
        out.append(token)
    return " ".join(out)


def felt(rng: random.Random, *, held_out: bool) -> tuple[str, str]:
    """Return (text, label): a sentence that names a feeling; its pair of feeling and clause is held out or is not."""
    while True:
        label, clause = rng.choice(LABELS), rng.choice(CLAUSES)
        if label in NOUNS and rng.random() < 0.25:
            feeling = rng.choice(NOUNS[label].split())
            start = rng.choice(["I am full of", "we are full of", "she was full of", "he is filled with", "it fills me with"])
            text = f"{start} {feeling} {clause}"
        else:
            feeling = rng.choice(FEELINGS[label].split())
            text = f"{rng.choice(SUBJECTS)} {rng.choice(DEGREES)}{feeling} {clause}"
        if (zlib.crc32(f"{feeling} {clause}".encode()) % HELD_OUT_ONE_IN == 0) == held_out:
            return text[0].upper() + text[1:] + ".", label


def labelled(count: int, seed: int, *, held_out: bool = False, more: bool = False) -> list[tuple[str, str]]:
    """Return `count` different (text, label): two variants of written sentences for every one that names a feeling.

    `more` adds sentences_more.csv, whose words go beyond the vocabulary: to be read, not all of them to be heard.
    """
    rng, base = random.Random(seed), written()[held_out] + (_read("sentences_more.csv") if more else [])
    found: dict[str, str] = {}
    while len(found) < count:
        text, label = felt(rng, held_out=held_out) if rng.random() < 1 / 3 else rng.choice(base)
        text = vary(text, rng)
        if not near_demo(text):
            found.setdefault(text, label)
    return list(found.items())


def vocabulary() -> list[str]:
    """Return every word that a text of any kind may hold: also the words of the held-out texts and of the demo."""
    held_and_demo = [text for part in written() for text, _ in part] + [t for texts in DEMO.values() for t in texts]
    frames = [*SUBJECTS, *CLAUSES, *FEELINGS.values(), *NOUNS.values(), "full of filled with it fills me", *DEGREES]
    members = [word for group in CLASSES for word in group]
    return sorted({w for text in [*held_and_demo, *frames, *members, COMMON] for w in words_of(text)})


def salad(seed: int, length: tuple[int, int] = (6, 10)) -> Iterator[str]:
    """Yield texts without sense for ever: words of the vocabulary, pieces of two or three words of the training texts."""
    rng, vocab = random.Random(seed), vocabulary()
    pieces = []
    for text, _ in written()[0]:
        words = words_of(text)
        pieces += [words[i : i + n] for n in (2, 3) for i in range(len(words) - n + 1)]
    while True:
        words, size = [], rng.randint(*length)
        while len(words) < size:
            words += [rng.choice(vocab)] if rng.random() < 0.65 else rng.choice(pieces)
        text = " ".join(words[:size])
        if not near_demo(text):
            yield text[0].upper() + text[1:] + "."
