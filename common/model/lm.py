"""Describe a loaded audio language model: decoder blocks, audio token, head."""

import inspect
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from common.errors import InputError

OFFERS = (  # the same three lines as in README.md
    "a config or processor with an audio token, or a prompt whose tokens differ with the clip; a generating class, in "
    "transformers or in code of the checkpoint's own (--trust-remote-code); a processor with a chat template, a tokenizer and an "
    "extractor with a sampling rate; a model that gives its input embeddings and has its decoder's blocks in a list beside them"
)


@dataclass(frozen=True)
class AudioLM:
    """A model that answers questions about a clip.

    `blocks` are the decoder's, h_l is what enters block l. `audio_token_id` is none where no token stands for audio alone;
    `around_audio` is what encoding has then found of where it stands. `device` is where inputs go, `adapters` the LoRA that is
    on, `commit` the state of a hub id. `trim`: clips are heard without the silence at their ends, `level`: all at this one, in
    dB of full scale. `thinking`: its chat template may leave it room for a thought.
    """

    model: Any
    processor: Any
    blocks: nn.ModuleList
    audio_token_id: int | None
    device: torch.device
    adapters: tuple[str, ...] = ()
    commit: str | None = None
    trim: bool = False
    level: float | None = None
    thinking: bool = True
    around_audio: dict[Any, tuple[int, int, bool]] = field(default_factory=dict, compare=False)

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
        return self.extractor.sampling_rate

    @property
    def extractor(self) -> Any:
        return next((part for part in vars(self.processor).values() if hasattr(part, "sampling_rate")), None)


def wrap_model(model: Any, processor: Any, *, device: torch.device, adapters: tuple[str, ...] = ()) -> AudioLM:
    """Find the decoder blocks and the audio token of a loaded model. Raises InputError where it has no way to hear."""
    audio_token_id = audio_token_id_of(model.config, processor)
    if audio_token_id is None and processor is None:
        raise InputError(f"{type(model).__name__} is not an audio language model: no audio token. Needed: {OFFERS}")
    model.register_forward_pre_hook(_draw_alike)
    if _takes_one_dict(model):
        model.register_forward_pre_hook(_in_one_dict, with_kwargs=True)
    _answer_in_text(model)
    lm = AudioLM(model, processor, _find_blocks(model), audio_token_id, device, adapters)
    if processor is not None and lm.extractor is None:
        raise InputError(f"{type(processor).__name__} is of an unknown build: no extractor of audio. Needed: {OFFERS}")
    return lm


def _draw_alike(module: Any, inputs: Any) -> None:
    """Let a model that adds noise to what it hears (VibeVoice) add the same in every run: patching compares two runs."""
    torch.manual_seed(0)


def _takes_one_dict(model: Any) -> bool:
    """Tell whether a model takes its inputs in one dict, as MiniCPM-o does, and only the decoder's options by name."""
    parameters = inspect.signature(model.forward).parameters
    first = next(iter(parameters.values()))
    return "input_ids" not in parameters and first.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD


def _in_one_dict(module: Any, args: Any, kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Sort a call's inputs into that dict, with the positions that it needs, and the decoder's options."""
    options: dict[str, Any] = {
        name: kwargs[name] for name in ("attention_mask", "past_key_values", "use_cache") if name in kwargs
    }
    ids = kwargs["input_ids"]
    inputs = {"position_ids": torch.arange(ids.shape[1], device=ids.device)[None]} | kwargs
    return ({name: value for name, value in inputs.items() if name not in options},), options


def _answer_in_text(model: Any) -> None:
    """Let a model that returns logits of several streams, as Kimi-Audio of speech and text, return those of its own head."""
    made: list[torch.Tensor] = []

    def pick(module: Any, args: Any, output: Any) -> Any:
        if isinstance(getattr(output, "logits", None), tuple | list):
            output.logits = next(logits for logits in output.logits if logits is made[-1])
        made.clear()
        return output

    if (head := model.get_output_embeddings()) is not None:
        head.register_forward_hook(lambda module, args, logits: made.append(logits))
        model.register_forward_hook(pick)


def audio_token_id_of(config: Any, processor: Any = None) -> int | None:
    """Return the id of the token that stands for audio, as config or processor name it; None where neither does."""
    places = (config, getattr(config, "audio_config", None), processor)
    ids = (getattr(place, key, None) for place in places for key in ("audio_token_id", "audio_token_index"))
    token = getattr(processor, "audio_token", None)
    return next((i for i in ids if i is not None), token and processor.tokenizer.convert_tokens_to_ids(token))


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
        f"{type(model).__name__} is of an unknown build: no list of blocks around its input embeddings. Needed: {OFFERS}"
    )
