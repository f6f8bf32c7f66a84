"""Load an audio language model, find its decoder, encode a clip into its prompt."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import nn
from transformers import AutoConfig, AutoProcessor

from common.audio import load_audio
from common.readout import fill_prompt
from common.samples import InputError

_AUTO_CLASSES = ("AutoModelForMultimodalLM", "AutoModelForSeq2SeqLM", "AutoModelForSpeechSeq2Seq", "AutoModelForCausalLM")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class AudioLM:
    """A model that answers questions about a clip. `blocks` are the decoder's, h_l is what enters block l."""

    model: Any
    processor: Any
    blocks: nn.ModuleList
    audio_token_id: int

    @property
    def device(self) -> torch.device:
        return self.model.get_input_embeddings().weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.model.dtype


@dataclass(frozen=True)
class EncodedClip:
    """One clip in its prompt, prefix | audio span | tail: the model's `inputs` (batch of 1) and where the span lies."""

    inputs: dict[str, torch.Tensor]
    span: slice

    @property
    def ids(self) -> torch.Tensor:
        return self.inputs["input_ids"]  # [1, pos]

    @property
    def prefix_ids(self) -> list[int]:
        return self.ids[0, : self.span.start].tolist()

    @property
    def tail_ids(self) -> list[int]:
        return self.ids[0, self.span.stop :].tolist()

    @property
    def tail(self) -> slice:
        return slice(self.span.stop, self.ids.shape[1])


def choose_device(name: str) -> torch.device:
    """Return the device `name`, for "auto" the first of cuda, mps, cpu. Raises InputError for one that is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch raises AssertionError where it is built without CUDA
        raise InputError(
            f"--device {name}: not usable here ({_first_line(error)}); allowed: auto, cpu, cuda, cuda:N, mps"
        ) from None
    return device


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """Return the dtype `name`; "auto" is bfloat16 on a CUDA device and float32 elsewhere."""
    return DTYPES["bfloat16" if device.type == "cuda" else "float32"] if name == "auto" else DTYPES[name]


def load_model(name: str, *, device: torch.device, dtype: torch.dtype) -> AudioLM:
    """Load the model and processor of a folder or hub id, ready for inference.

    The class follows from the config (of the thinker, in a full Qwen-Omni). Raises InputError where there is no
    such model or it is not an audio language model with an audio span in its token sequence.
    """
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    try:
        config = AutoConfig.from_pretrained(name)
    except Exception as error:  # whatever is wrong with a user's folder is not ours to list
        raise InputError(f"--model {name}: no model folder or hub id that can be read ({_first_line(error)})") from None
    config = getattr(config, "thinker_config", config)
    model_class = _model_class(name, config)
    if _audio_token_id(config) is None or not hasattr(config, "audio_config"):
        raise InputError(f"--model {name}: {type(config).__name__} is not an audio language model: no audio token in its config")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            processor = AutoProcessor.from_pretrained(name)
            model, loaded = model_class.from_pretrained(
                name, config=config, dtype=dtype, use_safetensors=True, output_loading_info=True
            )
    except Exception as error:
        raise InputError(f"--model {name}: cannot be loaded ({type(error).__name__}: {_first_line(error)})") from None
    if missing := sorted(loaded["missing_keys"]):  # transformers would go on with random numbers in their place
        raise InputError(f"--model {name}: {len(missing)} weights are not in its files, the first is {missing[0]}")
    return wrap_model(model.to(device).eval(), processor)


def wrap_model(model: Any, processor: Any) -> AudioLM:
    """Find the decoder blocks and the audio token of a loaded model. Raises InputError where it has none."""
    audio_token_id = _audio_token_id(model.config)
    if audio_token_id is None:
        raise InputError(f"{type(model).__name__} is not an audio language model: no audio token in its config")
    if not hasattr(processor, "feature_extractor"):
        raise InputError(f"{type(processor).__name__} has no feature_extractor; this kind of processor is not supported yet")
    return AudioLM(model, processor, _find_decoder(model).layers, audio_token_id)


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _model_class(name: str, config: Any) -> Any:
    for auto in _AUTO_CLASSES:
        mapping = getattr(transformers, auto)._model_mapping
        if type(config) in mapping:
            return mapping[type(config)]
    raise InputError(f"--model {name}: {type(config).__name__} is not an audio language model: no generating class takes it")


def _audio_token_id(config: Any) -> int | None:
    places = (config, getattr(config, "audio_config", None))
    ids = (getattr(place, key, None) for place in places for key in ("audio_token_id", "audio_token_index"))
    return next((i for i in ids if i is not None), None)


def _find_decoder(model: Any) -> Any:
    """Return the module that owns both the input embeddings and a ModuleList `layers`."""
    embeddings = model.get_input_embeddings()
    for module in model.modules():
        if isinstance(getattr(module, "layers", None), nn.ModuleList) and any(c is embeddings for c in module.children()):
            return module
    raise InputError(
        f"{type(model).__name__} is of an unknown build: no module owns both the input embeddings and a list of blocks"
    )


def load_clip(lm: AudioLM, path: Path) -> np.ndarray:
    """Return the samples of a clip at the rate of the model's extractor.

    Raises InputError for audio that cannot be used (see load_audio) or that is longer than the model's window, which the
    extractor would cut without a word.
    """
    extractor = lm.processor.feature_extractor
    wave = load_audio(path, extractor.sampling_rate)
    window = getattr(extractor, "n_samples", None)
    if window is not None and len(wave) > window:
        seconds, most = len(wave) / extractor.sampling_rate, window / extractor.sampling_rate
        raise InputError(f"{path}: {seconds:.2f} s long; the model hears {most:g} s at most, and would not hear the rest")
    return wave


def encode_clip(lm: AudioLM, path: Path, prompt: str) -> EncodedClip:
    """Put one clip into `prompt` with the model's own chat template and processor.

    One clip at a time: padding to a longer one changes the shorter one's states. Raises InputError as load_clip does, and
    where the audio tokens are not one span of the prompt.
    """
    wave = load_clip(lm, path)
    before, after = fill_prompt(prompt).split("{audio}")
    content: list[dict[str, Any]] = [{"type": "text", "text": t} for t in (before, after)]
    content.insert(1, {"type": "audio", "audio": wave})
    batch = lm.processor.apply_chat_template(
        [{"role": "user", "content": [c for c in content if c.get("text") != ""]}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    inputs = dict(batch.to(lm.device, lm.dtype))
    positions = (inputs["input_ids"][0] == lm.audio_token_id).nonzero().flatten().tolist()
    if not positions or len(positions) != positions[-1] + 1 - positions[0]:
        raise InputError(f"{path}: its {len(positions)} audio tokens are not one span of the prompt")
    return EncodedClip(inputs, slice(positions[0], positions[-1] + 1))
