from pathlib import Path

import pytest
import torch

from common.clips.manifest import LABELS
from common.errors import InputError
from common.model.encoding import encode_clip
from common.model.lm import AudioLM
from common.model.load import load_model
from common.model.prompts import ORDERS, PROMPTS, ask, fill_prompt, get_prompt, get_words
from common.model.readout import Readout, resolve_readout, tokens_behind
from tests.tiny_models.tiny import save_tiny_model


def test_prompts_name_all_labels_and_hold_one_clip() -> None:
    for name in PROMPTS:
        filled = fill_prompt(get_prompt(name), get_words(None, name))
        labels = "中性、高兴、悲伤、愤怒或惊讶" if "-zh" in name else "neutral, happy, sad, angry or surprised"
        in_order = not name.endswith(tuple(ORDERS))
        assert filled.count("{audio}") == 1 and (labels in filled) == in_order and "{" not in filled.replace("{audio}", "")


def test_words_are_five_different_ones() -> None:
    assert get_words(None, "voice") == LABELS and get_words(list("abcde"), "voice-zh") == tuple("abcde")
    for words in (list("abcda"), ["a", "b", "c", "d", ""], ["a", "b", "c", "d", "e "]):
        with pytest.raises(InputError, match="--words a b c d.*: must be 5 different words"):
            get_words(words, "voice")


def test_any_labels(tmp_path: Path) -> None:
    four = ask("words", labels=LABELS[:4])
    assert four.prompt.endswith("neutral, happy, sad or angry.") and four.words == four.labels == LABELS[:4]
    assert ask("voice-zh", labels=("happy", "bored")).words == ("高兴", "bored")
    file = tmp_path / "irony.txt"
    file.write_text("{audio}Is this meant? {labels:rotated}")
    assert ask(str(file), labels=("meant", "ironic"), words=("yes", "no")).prompt.endswith("Is this meant? no or yes")
    with pytest.raises(InputError, match="--words a b c: must be 2 different words, for meant, ironic in this order"):
        ask(str(file), labels=("meant", "ironic"), words=tuple("abc"))
    for labels in (("one",), ("a", "a"), ("a", ""), tuple("abcdefghijk")):
        with pytest.raises(InputError, match="--labels .*: must be 2 to 10 different labels"):
            ask("voice", labels=labels)


def test_other_words_are_read_at_their_own_tokens(lm: AudioLM, manifest: Path) -> None:
    clip = manifest.parent / "sad_0_happy_a.wav"
    words = ("Neutral", "Happy", "Sad", "Angry", "Useless")
    tail = encode_clip(lm, clip, fill_prompt(PROMPTS["voice"], words)).tail_ids
    readout = resolve_readout(lm.processor.tokenizer, tail, ask("voice", words=words))
    assert readout.tokens == tuple("NHSAU") and readout.words == words
    text = lm.processor.tokenizer.decode(tail)
    assert "Neutral, Happy, Sad, Angry or Useless" in text


def test_the_mass_of_the_five() -> None:
    readout = Readout(LABELS, LABELS, (0, 1, 2, 3, 4), LABELS)
    assert float(readout.mass(torch.zeros(10))) == pytest.approx(0.5)


def test_a_prompt_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.txt"
    file.write_text("Listen. {audio} One of {labels}?\n")
    assert fill_prompt(get_prompt(str(file)), ("a", "b", "c")) == "Listen. {audio} One of a, b or c?"
    file.write_text("No clip here")
    with pytest.raises(InputError, match=r"mine.txt: holds \{audio\} 0 times"):
        get_prompt(str(file))
    with pytest.raises(InputError, match="neither a readable text file nor one of speaker, voice, words"):
        get_prompt(str(tmp_path / "gone.txt"))


def test_label_tokens_are_found_in_their_place(lm: AudioLM, manifest: Path) -> None:
    tail = encode_clip(lm, manifest.parent / "sad_0_happy_a.wav", PROMPTS["voice"]).tail_ids
    readout = resolve_readout(lm.processor.tokenizer, tail, ask("voice"))
    assert readout.tokens == LABELS


def test_label_words_that_share_their_first_token_are_refused(tmp_path: Path, manifest: Path) -> None:
    folder = save_tiny_model(tmp_path, label_tokens=False)
    lm = load_model(str(folder), device=torch.device("cpu"), dtype=torch.float32)
    tail = encode_clip(lm, manifest.parent / "sad_0_happy_a.wav", PROMPTS["voice"]).tail_ids
    with pytest.raises(InputError, match="two label words share their first token: .*sad -> 's'.*surprised -> 's'"):
        resolve_readout(lm.processor.tokenizer, tail, ask("voice"))


def test_a_word_that_changes_the_prompts_own_tokens_is_refused() -> None:
    class Greedy:
        """A tokenizer of whole words, so that what is glued to the prompt's end is another token."""

        all_special_ids = ()

        def decode(self, ids: list[int], **_: bool) -> str:
            return {7: "say"}[ids[0]]

        def encode(self, text: str, **_: bool) -> list[int]:
            return [7] if text == "say" else [8]

    with pytest.raises(InputError, match="'neutral' melts into"):
        resolve_readout(Greedy(), [7], ask("voice"))


def test_a_special_token_of_the_prompts_end_is_not_read_again_as_text() -> None:
    class Letters:
        """A tokenizer of letters, to which the name of its special token is text."""

        all_special_ids = (0,)

        def decode(self, ids: list[int], **_: bool) -> str:
            return "".join(chr(i) if i else "<end>" for i in ids)

        def encode(self, text: str, **_: bool) -> list[int]:
            return [ord(c) for c in text]

    assert tokens_behind(Letters(), [ord("a"), 0, ord(":")], "sad") == tuple(map(ord, "sad"))
    assert tokens_behind(Letters(), [0], "sad") == tuple(map(ord, "sad"))
