"""Load an audio language model of any family, and find its decoder.

No family has code of its own: what differs between them is asked of the model, its config and its processor.
"""

import errno
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import transformers
from huggingface_hub.errors import GatedRepoError
from torch import nn
from transformers import AutoConfig, AutoFeatureExtractor, AutoProcessor, AutoTokenizer, GenerationConfig
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING
from transformers.utils import cached_file, extract_commit_hash

from common.errors import InputError, first_line
from common.model.device import spread_over
from common.model.lm import OFFERS, AudioLM, audio_token_id_of, wrap_model
from common.model.weights import check_weights, progress_bars

_AUTO_CLASSES = ("AutoModelForMultimodalLM", "AutoModelForSeq2SeqLM", "AutoModelForSpeechSeq2Seq", "AutoModelForCausalLM")
_SPEECH_LORA = "speech-lora"  # the subfolder in which a checkpoint may hold the adapter that it hears through
_HEARS_THROUGH_LORA = ("phi4_multimodal",)  # whose config does not tell: without its adapter it runs, and hears badly


def load_model(
    name: str,
    *,
    device: torch.device,
    dtype: torch.dtype,
    revision: str | None = None,
    trust_remote_code: bool = False,
    attention: str | None = None,
    device_map: str | dict[str, Any] | None = None,
    quantization: Any = None,
) -> AudioLM:
    """Load the model and processor of a folder or hub id, ready for inference.

    The class follows from the config (of the thinker, in a full Qwen-Omni). A model larger than the free memory of its CUDA
    device is spread over all of them and main memory; `device_map` spreads it as it says; `quantization` is a config of
    transformers, for weights that are quantised as they are read. Raises InputError where there is
    no such model or it is not an audio language model with an audio span in its token sequence.
    """
    source = _source(name, revision, trust_remote_code)
    whole, config = _read_config(name, source)
    model_class, processor = _model_class(name, config), _read_processor(name, whole, source)
    try:
        check_weights(name, source["revision"])
        with progress_bars():
            spread = device_map or spread_over(model_class, config, dtype, device, trust_remote_code, quantization)
            model, loaded = model_class.from_pretrained(
                name,
                config=config,
                dtype=dtype,
                use_safetensors=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # refused below, by name
                attn_implementation=attention,
                device_map=spread,
                **({"quantization_config": quantization} if quantization else {}),
                **source,
            )
            adapters = _hear_through_lora(model, name, source)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"--model {name}: cannot be loaded ({_reason(error)})") from None
    # transformers would go on with random numbers in their place
    if mismatched := sorted(loaded["mismatched_keys"]):
        key, there, wanted = mismatched[0]
        raise InputError(
            f"--model {name}: {len(mismatched)} weights have another shape than its config says, the first is {key}: "
            f"{[*there]} in its files, {[*wanted]} wanted"
        )
    if missing := sorted(loaded["missing_keys"]):
        raise InputError(f"--model {name}: {len(missing)} weights are not in its files, the first is {missing[0]}")
    model.eval()
    _speak_plainly(model)
    lm = wrap_model(model if spread or quantization else model.to(device), processor, device=device, adapters=adapters)
    return lm if Path(name).is_dir() else replace(lm, commit=source["revision"])


def _speak_plainly(model: Any) -> None:
    """Forget how a checkpoint would have its answers drawn, searched, penalised or stopped, all but its tokens of start and end.

    A penalty of what was said already would fall on the labels, as the prompt lists them.
    """
    own = getattr(model, "generation_config", None)
    if own is not None:
        kept = {name: getattr(own, name, None) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
        model.generation_config = GenerationConfig(**kept)


def load_ears(name: str, *, revision: str | None, trust_remote_code: bool, trim: bool) -> AudioLM:
    """Load what turns a clip into a model's input, and no model: enough to ask how much of a clip it would hear.

    Raises InputError as load_model does.
    """
    _, config, processor = model_parts(name, revision, trust_remote_code)
    no_model = SimpleNamespace(dtype=torch.float32)
    return AudioLM(no_model, processor, nn.ModuleList(), audio_token_id_of(config, processor), torch.device("cpu"), trim=trim)


def model_parts(name: str, revision: str | None, trust_remote_code: bool) -> tuple[Any, Any, Any]:
    """Return the class of a model, its config and its processor; no weights are read. Raises InputError as load_model does."""
    source = _source(name, revision, trust_remote_code)
    whole, config = _read_config(name, source)
    return _model_class(name, config), config, _read_processor(name, whole, source)


def _source(name: str, revision: str | None, trust_remote_code: bool) -> dict[str, Any]:
    """Return how the parts of a model are asked for: of a hub id all from one commit, also if a branch moves meanwhile."""
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    if not Path(name).is_dir():
        try:
            revision = extract_commit_hash(cached_file(name, "config.json", revision=revision), None)
        except Exception as error:
            raise InputError(f"--model {name}: no model folder or hub id that can be read ({_reason(error)})") from None
    return {"revision": revision, "trust_remote_code": trust_remote_code}


def _reason(error: BaseException) -> str:
    """Say why something could not be loaded; of a download that broke off transformers says that a file is not there."""
    chain, below = [error], error.__cause__ or error.__context__
    while below is not None:
        chain.append(below)
        below = below.__cause__ or below.__context__
    for told in chain:
        if isinstance(told, GatedRepoError):
            return "it is gated: ask for access on its page, then log in with hf auth login"
        if getattr(told, "errno", None) == errno.ENOSPC:
            return f"the disk is full: {first_line(told)}"
    told = next((e for e in chain if type(e).__name__ in ("RemoteProtocolError", "ReadError", "ReadTimeout")), error)
    return first_line(told) if isinstance(told, OSError) else f"{type(told).__name__}: {first_line(told)}"


def _read_config(name: str, source: dict[str, Any]) -> tuple[Any, Any]:
    """Return the config of a folder or hub id, and the part of it that hears and answers (of Qwen-Omni the thinker's)."""
    try:
        whole = AutoConfig.from_pretrained(name, **source)
    except Exception as error:  # whatever is wrong with a user's folder is not ours to list
        if "custom code" in str(error):
            raise InputError(f"--model {name}: comes with code of its own; --trust-remote-code runs it") from None
        raise InputError(f"--model {name}: no model folder or hub id that can be read ({_reason(error)})") from None
    _name_outputs(whole)
    config = getattr(whole, "thinker_config", whole)
    if audio_token_id_of(config) is None and not getattr(config, "auto_map", None):  # own code may keep it in its processor
        raise InputError(
            f"--model {name}: {type(config).__name__} is not an audio language model with an audio span among its tokens: no "
            "audio token in its config"
        )
    return whole, config


def _name_outputs(config: Any) -> None:
    """Let a model and its parts return what they compute by name, also where their config asks for tuples."""
    config.return_dict = True
    for part in (getattr(config, name, None) for name in config.sub_configs):
        if part is not None:
            _name_outputs(part)


def _model_class(name: str, config: Any) -> Any:
    own = getattr(config, "auto_map", None) or {}  # code of the checkpoint's own, which the user has trusted
    if of_own := next((auto for auto in (*_AUTO_CLASSES, "AutoModel") if auto in own), None):
        return getattr(transformers, of_own)
    for auto in _AUTO_CLASSES:
        mapping = getattr(transformers, auto)._model_mapping
        if type(config) in mapping:
            return mapping[type(config)]
    kind = f"{type(config).__name__} is not an audio language model: no generating class takes it"
    raise InputError(f"--model {name}: {kind}. Needed: {OFFERS}")


def _read_processor(name: str, config: Any, source: dict[str, Any]) -> Any:
    """Load the processor. Raises InputError where that cannot be."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _load_processor(name, config, source)
    except Exception as error:
        raise InputError(f"--model {name}: its processor cannot be loaded ({_reason(error)})") from None


def _load_processor(name: str, config: Any, source: dict[str, Any]) -> Any:
    """Load a processor without its image and video halves: no clip needs them, and they need torchvision."""
    whole: Any = PROCESSOR_MAPPING.get(type(config), None)
    if whole is None or not any(_visual(part) for part in whole.get_attributes()):
        return AutoProcessor.from_pretrained(name, **source)

    def load_parts(cls: Any, name: str, processor_dict: Any = None, **options: Any) -> list[Any]:
        loaders = {"tokenizer": AutoTokenizer}
        parts: Sequence[str] = whole.get_attributes()
        return [None if _visual(p) else loaders.get(p, AutoFeatureExtractor).from_pretrained(name, **source) for p in parts]

    def check(self: Any, part: str, value: Any) -> Any:
        return None if _visual(part) else whole.check_argument_for_proper_class(self, part, value)

    changed = {"_get_arguments_from_pretrained": classmethod(load_parts), "check_argument_for_proper_class": check}
    audio_only: Any = type(whole.__name__, (whole,), changed)
    return audio_only.from_pretrained(name, **source)


def _visual(part: str) -> bool:
    return "image" in part or "video" in part


def _hear_through_lora(model: Any, name: str, source: dict[str, Any]) -> tuple[str, ...]:
    """Turn on the LoRA adapter that a checkpoint has for audio; return its name. Raises InputError where it should have one."""
    place = {"revision": source["revision"]}
    quiet = dict.fromkeys(
        (f"_raise_exceptions_for_{what}" for what in ("missing_entries", "connection_errors", "gated_repo")), False
    )
    loaded = getattr(model, "_hf_peft_config_loaded", False)
    if not loaded and cached_file(name, f"{_SPEECH_LORA}/adapter_config.json", **place, **quiet):
        model.load_adapter(name, adapter_name="speech", adapter_kwargs={"subfolder": _SPEECH_LORA, **place})
        model.set_adapter("speech")
    if getattr(model, "_hf_peft_config_loaded", False):
        model.enable_adapters()
        return tuple(model.active_adapters())
    if getattr(model.config, "has_lora_adapter", False) or model.config.model_type in _HEARS_THROUGH_LORA:
        raise InputError(
            f"--model {name}: hears through a LoRA adapter, and none was found; it needs peft, and its adapter in the "
            f"checkpoint's folder or in {_SPEECH_LORA}/ of it (offline: in the cache)"
        )
    return ()
