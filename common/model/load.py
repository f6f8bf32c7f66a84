"""Load an audio language model, whatever its family, and find its decoder.

No family has code of its own: what differs between them is asked of the model, its config and its processor.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import transformers
from torch import nn
from transformers import AutoConfig, AutoFeatureExtractor, AutoProcessor, AutoTokenizer
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING
from transformers.utils import cached_file, extract_commit_hash

from common.errors import InputError, first_line
from common.running.parallel import own_device, processes

_AUTO_CLASSES = ("AutoModelForMultimodalLM", "AutoModelForSeq2SeqLM", "AutoModelForSpeechSeq2Seq", "AutoModelForCausalLM")
_OFFERS = (  # the same three lines as in README.md
    "a config or processor with an audio token, and a generating class, in transformers or in code of the checkpoint's own "
    "(--trust-remote-code); a processor with a chat template, a tokenizer and an extractor with a sampling rate; a model that "
    "gives its input embeddings and has its decoder's blocks in a list beside them"
)
_SPEECH_LORA = "speech-lora"  # the subfolder in which a checkpoint may hold the adapter that it hears through
_HEARS_THROUGH_LORA = ("phi4_multimodal",)  # whose config does not tell: without its adapter it runs, and hears badly
_FREE_SHARE = 0.85  # of a GPU's free memory may go to weights; the rest is for the work
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class AudioLM:
    """A model that answers questions about a clip.

    `blocks` are the decoder's, h_l is what enters block l. `device` is where inputs go, `adapters` the LoRA that is on,
    `commit` the state of a hub id. `trim`: clips are heard without the silence at their ends,
    `level`: all at this one, in dB of full scale.
    """

    model: Any
    processor: Any
    blocks: nn.ModuleList
    audio_token_id: int
    device: torch.device
    adapters: tuple[str, ...] = ()
    commit: str | None = None
    trim: bool = False
    level: float | None = None

    @property
    def dtype(self) -> torch.dtype:
        return self.model.dtype

    @property
    def layers(self) -> tuple[int, ...]:
        """The points 0..L, one more than there are blocks."""
        return tuple(range(len(self.blocks) + 1))

    @property
    def rate(self) -> int:
        """Samples a second that the model's extractor takes."""
        return self._extractor.sampling_rate

    @property
    def _extractor(self) -> Any:
        return next((part for part in vars(self.processor).values() if hasattr(part, "sampling_rate")), None)


def choose_device(name: str) -> torch.device:
    """Return the device `name`, for "auto" the first of cuda, mps, cpu. Raises InputError for one that is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    name = own_device(name)
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch raises AssertionError where it is built without CUDA
        raise InputError(
            f"--device {name}: not usable here ({first_line(error)}); allowed: auto, cpu, cuda, cuda:N, mps"
        ) from None
    return device


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """Return the dtype `name`; "auto" is bfloat16 on a CUDA device, float16 where it has none (before Ampere), else float32."""
    if name != "auto":
        return DTYPES[name]
    if device.type != "cuda":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def load_model(
    name: str,
    *,
    device: torch.device,
    dtype: torch.dtype,
    revision: str | None = None,
    trust_remote_code: bool = False,
    attention: str | None = None,
    device_map: dict[str, str] | None = None,
) -> AudioLM:
    """Load the model and processor of a folder or hub id, ready for inference.

    The class follows from the config (of the thinker, in a full Qwen-Omni). A model larger than the free memory of its CUDA
    device is spread over all of them and main memory, as `device_map` spreads it by hand. Raises InputError where there is
    no such model or it is not an audio language model with an audio span in its token sequence.
    """
    source = _source(name, revision, trust_remote_code)
    whole, config = _read_config(name, source)
    model_class, processor = _model_class(name, config), _read_processor(name, whole, source)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            spread = device_map or _spread(model_class, config, dtype, device, trust_remote_code)
            model, loaded = model_class.from_pretrained(
                name,
                config=config,
                dtype=dtype,
                use_safetensors=True,
                output_loading_info=True,
                attn_implementation=attention,
                device_map=spread,
                **source,
            )
            adapters = _hear_through_lora(model, name, source)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"--model {name}: cannot be loaded ({_reason(error)})") from None
    if missing := sorted(loaded["missing_keys"]):  # transformers would go on with random numbers in their place
        raise InputError(f"--model {name}: {len(missing)} weights are not in its files, the first is {missing[0]}")
    model.eval()
    lm = wrap_model(model if spread else model.to(device), processor, device=device, adapters=adapters)
    return lm if Path(name).is_dir() else replace(lm, commit=source["revision"])


def load_ears(name: str, *, revision: str | None, trust_remote_code: bool, trim: bool) -> AudioLM:
    """Load what turns a clip into a model's input, and no model: enough to ask how much of a clip it would hear.

    Raises InputError as load_model does.
    """
    source = _source(name, revision, trust_remote_code)
    whole, config = _read_config(name, source)
    processor = _read_processor(name, whole, source)
    no_model = SimpleNamespace(dtype=torch.float32)
    return AudioLM(no_model, processor, nn.ModuleList(), _audio_token_id(config, processor) or 0, torch.device("cpu"), trim=trim)


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
    below: BaseException | None = error
    while below is not None and type(below).__name__ not in ("RemoteProtocolError", "ReadError", "ReadTimeout"):
        below = below.__cause__ or below.__context__
    told = below or error
    return first_line(told) if isinstance(told, OSError) else f"{type(told).__name__}: {first_line(told)}"


def _read_config(name: str, source: dict[str, Any]) -> tuple[Any, Any]:
    """Return the config of a folder or hub id, and the part of it that hears and answers (of Qwen-Omni the thinker's)."""
    try:
        whole = AutoConfig.from_pretrained(name, **source)
    except Exception as error:  # whatever is wrong with a user's folder is not ours to list
        if "custom code" in str(error):
            raise InputError(f"--model {name}: comes with code of its own; --trust-remote-code runs it") from None
        raise InputError(f"--model {name}: no model folder or hub id that can be read ({_reason(error)})") from None
    config = getattr(whole, "thinker_config", whole)
    if _audio_token_id(config) is None and not getattr(config, "auto_map", None):  # own code may keep it in its processor
        raise InputError(
            f"--model {name}: {type(config).__name__} is not an audio language model with an audio span among its tokens: no "
            "audio token in its config"
        )
    return whole, config


def wrap_model(model: Any, processor: Any, *, device: torch.device, adapters: tuple[str, ...] = ()) -> AudioLM:
    """Find the decoder blocks and the audio token of a loaded model. Raises InputError where it has none."""
    audio_token_id = _audio_token_id(model.config, processor)
    if audio_token_id is None:
        raise InputError(f"{type(model).__name__} is not an audio language model: no audio token. Needed: {_OFFERS}")
    model.register_forward_pre_hook(_draw_alike)
    lm = AudioLM(model, processor, _find_blocks(model), audio_token_id, device, adapters)
    if processor is not None and lm._extractor is None:
        raise InputError(f"{type(processor).__name__} is of an unknown build: no extractor of audio. Needed: {_OFFERS}")
    return lm


def _draw_alike(module: Any, args: Any) -> None:
    """Let a model that adds noise to what it hears (VibeVoice) add the same in every run: patching compares two runs."""
    torch.manual_seed(0)


def _model_class(name: str, config: Any) -> Any:
    own = getattr(config, "auto_map", None) or {}  # code of the checkpoint's own, which the user has trusted
    if of_own := next((auto for auto in (*_AUTO_CLASSES, "AutoModel") if auto in own), None):
        return getattr(transformers, of_own)
    for auto in _AUTO_CLASSES:
        mapping = getattr(transformers, auto)._model_mapping
        if type(config) in mapping:
            return mapping[type(config)]
    kind = f"{type(config).__name__} is not an audio language model: no generating class takes it"
    raise InputError(f"--model {name}: {kind}. Needed: {_OFFERS}")


def _audio_token_id(config: Any, processor: Any = None) -> int | None:
    places = (config, getattr(config, "audio_config", None), processor)
    ids = (getattr(place, key, None) for place in places for key in ("audio_token_id", "audio_token_index"))
    token = getattr(processor, "audio_token", None)
    return next((i for i in ids if i is not None), token and processor.tokenizer.convert_tokens_to_ids(token))


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


def _spread(
    model_class: Any, config: Any, dtype: torch.dtype, device: torch.device, trust_remote_code: bool = False
) -> str | dict[str, str] | None:
    """Return the device map of a CUDA device: weights go straight there, or "auto" where they do not fit; else None."""
    if device.type != "cuda":
        return None
    needed = weight_bytes(model_class, config, dtype, trust_remote_code=trust_remote_code)
    if needed < _FREE_SHARE * torch.cuda.mem_get_info(device)[0]:
        return {"": f"cuda:{device.index or 0}"}
    if processes() > 1:
        raise InputError("the model does not fit one GPU: start one process, and it is spread over all of them")
    return "auto"


def weight_bytes(model_class: Any, config: Any, dtype: torch.dtype, *, trust_remote_code: bool = False) -> int:
    """Return how many bytes the model's weights take in `dtype`, without making them."""
    with torch.device("meta"):
        if hasattr(model_class, "from_config"):  # an Auto class, for code of the checkpoint's own
            model = model_class.from_config(config, trust_remote_code=trust_remote_code)
        else:
            model = model_class(config)
        return sum(p.numel() for p in model.parameters()) * dtype.itemsize


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


def _find_blocks(model: Any) -> nn.ModuleList:
    """Return the decoder's blocks: of the lists in the innermost module around the input embeddings that has any, the largest."""
    try:
        embeddings = model.get_input_embeddings()
    except (AttributeError, NotImplementedError):
        embeddings = None
    around = [m for m in model.modules() if embeddings is not None and any(inner is embeddings for inner in m.modules())]
    for module in reversed(around):  # `modules` gives the outer ones first
        if lists := [m for m in module.modules() if isinstance(m, nn.ModuleList) and len(m)]:
            return max(lists, key=lambda blocks: sum(p.numel() for p in blocks.parameters()))
    raise InputError(
        f"{type(model).__name__} is of an unknown build: no list of blocks around its input embeddings. Needed: {_OFFERS}"
    )
