"""Settings that a checkpoint's files may hold, and that must not change what is measured."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from tokenizers.processors import TemplateProcessing

from common.clips.audio import load_audio
from common.errors import InputError
from common.model.encoding import EncodedClip, check_window, encode_clip, encode_wave
from common.model.generation import MOST_TOKENS, generated
from common.model.lm import AudioLM
from common.model.load import load_model
from common.model.prompts import PROMPTS
from common.patching.free_text import end_tokens, greedy
from common.tracing.trace import own_logits
from tests.tiny_models.families import save_granite_speech
from tests.tiny_models.tiny import RATE

NAME, BOS = "sad_1_angry_b.wav", "<|im_end|>"
SETTINGS: dict[str, dict[str, Any]] = {
    "a penalty": {"repetition_penalty": 5.0},
    "beams": {"num_beams": 4},
    "a search": {"penalty_alpha": 0.6, "top_k": 4},
    "a drawing": {"do_sample": True, "temperature": 2.0, "num_return_sequences": 2},
    "a stop": {"stop_strings": ["a"]},
    "banned tokens": {"suppress_tokens": [*range(32, 200)], "min_new_tokens": 9},
}


def changed(folder: Path, to: Path, file: str, change: Callable[[dict[str, Any]], Any]) -> AudioLM:
    """Load a copy of a model, in which the object in a JSON file is changed."""
    shutil.copytree(folder, to)
    settings = json.loads((to / file).read_text())
    change(settings)
    (to / file).write_text(json.dumps(settings))
    return load_model(str(to), device=torch.device("cpu"), dtype=torch.float32)


def heard(lm: AudioLM, manifest: Path, prompt: str = "voice") -> EncodedClip:
    return encode_clip(lm, manifest.parent / NAME, PROMPTS[prompt])


def likeliest(lm: AudioLM, clip: EncodedClip) -> str:
    tokens = greedy(lambda said, rows: own_logits(lm, clip.continued(said))[None], 1, ends=end_tokens(lm), most=MOST_TOKENS)[0]
    return " ".join(lm.processor.tokenizer.decode(tokens, skip_special_tokens=True).split())


@pytest.mark.parametrize("setting", SETTINGS)
def test_free_text_is_the_likeliest_tokens_whatever_the_checkpoint_sets(
    setting: str, lm: AudioLM, tiny_folder: Path, manifest: Path, tmp_path: Path
) -> None:
    """A penalty of repetition falls on the labels, as the prompt lists them; stop strings end the run in an error."""
    other = changed(tiny_folder, tmp_path / "m", "generation_config.json", lambda s: s.update(SETTINGS[setting]))
    for prompt in ("voice", "words", "speaker"):
        assert generated(other, heard(other, manifest, prompt)) == likeliest(lm, heard(lm, manifest, prompt))
    assert end_tokens(other) == end_tokens(lm)


@pytest.mark.parametrize("part", [None, "text_config", "audio_config"])
def test_outputs_have_names_where_a_config_asks_for_tuples(
    part: str | None, lm: AudioLM, tiny_folder: Path, manifest: Path, tmp_path: Path
) -> None:
    other = changed(tiny_folder, tmp_path / "m", "config.json", lambda s: (s[part] if part else s).update(return_dict=False))
    assert torch.equal(own_logits(other, heard(other, manifest)), own_logits(lm, heard(lm, manifest)))


def test_of_several_chat_templates_the_default_is_taken(lm: AudioLM, tiny_folder: Path, manifest: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "m"))
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool_use.jinja").write_text("{{ 'no audio' }}")
    other = load_model(str(folder), device=torch.device("cpu"), dtype=torch.float32)
    assert set(other.processor.chat_template) == {"default", "tool_use"}
    assert torch.equal(heard(other, manifest).ids, heard(lm, manifest).ids)


def test_a_template_and_a_tokenizer_begin_the_prompt_once(manifest: Path, tmp_path: Path) -> None:
    """Of a template that knows text alone, whose prompt the processor tokenizes: both would put a token of start before it."""
    lm = load_model(str(save_granite_speech(tmp_path)), device=torch.device("cpu"), dtype=torch.float32)
    tokenizer = lm.processor.tokenizer
    without = heard(lm, manifest).ids[0].tolist()
    tokenizer.bos_token, begin = BOS, tokenizer.convert_tokens_to_ids(BOS)
    tokenizer._tokenizer.post_processor = TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, begin)])
    assert heard(lm, manifest).ids[0].tolist() == [begin, *without]
    lm.processor.chat_template = "{{ bos_token }}" + lm.processor.chat_template
    assert heard(lm, manifest).ids[0].tolist() == [begin, *without]


def test_an_extractor_that_adds_noise_adds_the_same_each_time(tiny_folder: Path, manifest: Path, tmp_path: Path) -> None:
    """Else a clip would not be the same one as recipient and as donor, and a window would end nowhere."""
    lm = changed(tiny_folder, tmp_path / "m", "processor_config.json", lambda s: s["feature_extractor"].update(dither=0.01))
    one = heard(lm, manifest).inputs["input_features"]
    torch.manual_seed(1)
    np.random.seed(1)
    own = torch.get_rng_state(), np.random.get_state()[1].copy()
    assert torch.equal(heard(lm, manifest).inputs["input_features"], one)
    assert torch.equal(torch.get_rng_state(), own[0]) and (np.random.get_state()[1] == own[1]).all()
    path = manifest.parent / NAME
    wave = load_audio(path, RATE)
    lm.extractor.dither = 0.0
    assert not torch.equal(encode_wave(lm, wave, PROMPTS["voice"])["input_features"], one)


def test_a_window_is_found_behind_noise(tiny_folder: Path, tmp_path: Path) -> None:
    lm = changed(tiny_folder, tmp_path / "m", "processor_config.json", lambda s: s["feature_extractor"].update(dither=0.01))
    soundfile.write(tmp_path / "long.wav", np.random.default_rng(0).uniform(-0.5, 0.5, 24_000), RATE)
    with pytest.raises(InputError, match="the model hears about 1.0 s"):
        check_window(lm, [tmp_path / "long.wav"], [24_000], PROMPTS["voice"])


def test_a_weight_of_another_shape_is_named(tiny_folder: Path, tmp_path: Path) -> None:
    """The reason that transformers gives is in a report, which nobody sees."""

    def shorter(settings: dict[str, Any]) -> None:
        settings["text_config"]["vocab_size"] -= 1

    with pytest.raises(
        InputError, match=r"weights have another shape .* the first is lm_head.weight: \[267, 32\] .* \[266, 32\]"
    ):
        changed(tiny_folder, tmp_path / "m", "config.json", shorter)
