"""Check on a run's own clips what must hold exactly, such as that a clip patched into itself changes nothing."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from common.errors import CheckFailed
from common.model.encoding import EncodedClip, per_token
from common.model.lm import AudioLM
from common.patching import ENGINES
from common.patching.engine_check import PatchCheck, attempt, check_patching, shown
from common.tracing.hooks import hooks
from common.tracing.prefix_cache import prefix_cache_of
from common.tracing.tolerance import check_finite, equal, largest_difference, tolerance
from common.tracing.trace import lens, own_logits, states_at


@dataclass(frozen=True)
class SelfCheck:
    """What a run found when it checked itself on a clip A and another, B. All but the counts are logits.

    `lens_last` is how far row L of the lens is from the model's own answer, `in_float32` the same for the label logits.
    `contrast` is how far the answers to A and B are apart: no identity but the measure for them, as a check says little where
    its difference is not far below it. `noise` is how far two answers to A are apart where the model draws other noise for each.
    `tolerance` is the largest difference that counts as equal, `scale` the largest logit. `text_within`: of the audio tokens, how
    many are text that the processor writes among them. `from_prefix_cache`: how far the answers are from those read over
    the clips' prefix caches: nan where that does not run, none where it is not asked for.
    Of clips that are given as text there is no audio to check: `audio_tokens` and `moved_by_audio` are none.
    """

    lens_last: float
    in_float32: float
    contrast: float
    tolerance: float
    scale: float
    noise: float
    audio_tokens: int | None
    text_within: int
    moved_by_audio: int | None
    adapters: float | None
    from_prefix_cache: float | None
    patch: PatchCheck | None

    def figures(self) -> dict[str, Any]:
        """Return the check as run.json tells it."""
        adapters = {} if self.adapters is None else {"LoRA on - off": self.adapters}
        prefix_cache = (
            {} if self.from_prefix_cache is None else {"read behind the kept audio - model": shown(self.from_prefix_cache)}
        )
        text = {"of them text": self.text_within} if self.text_within else {}
        audio = {"audio tokens": self.audio_tokens, **text, "positions that the audio moves": self.moved_by_audio}
        return {
            "lens row L - model": self.lens_last,
            "label logits in float32 - model": self.in_float32,
            **prefix_cache,
            **(self.patch.figures() if self.patch else {}),
            **adapters,
            **({"A - A with other noise": self.noise} if self.noise else {}),
            "A - B, for comparison": self.contrast,
            "tolerance": self.tolerance,
            "largest logit": self.scale,
            **({"audio": "none in the input, none checked"} if self.audio_tokens is None else audio),
        }


def self_check(
    lm: AudioLM,
    a: EncodedClip,
    others: Sequence[EncodedClip],
    *,
    tokens: Sequence[int],
    engines: Sequence[str] = ENGINES,
    layers: Sequence[int] | None = None,
    prefix_caches: bool = False,
) -> SelfCheck:
    """Check lens, audio and patching on a clip `a` and `others`, the first of which is B; all lend their audio to `a`.

    `tokens` are those that the answer is read at, `layers` those of the run (default: all). Of `engines` the first that holds is
    taken; without any, as for the lens, nothing is patched. `prefix_caches`: check reading over these too.
    Raises CheckFailed where an identity is off by more than the tolerance of the dtype.
    """
    own, own_b = own_logits(lm, a), own_logits(lm, others[0])
    check_finite(own, "self-check")
    scale = float(own.abs().max())
    limit = tolerance(lm, scale=scale)
    if (noise := _other_draw(lm, a, own)) > limit:  # so that the next would fail too, and not say why
        equal("the difference between two runs of one clip", largest_difference(own_logits(lm, a), own), limit)
    whole, of_tokens = lens(lm, a, tokens)
    lens_last = equal("lens row L - model", largest_difference(whole[-1], own), limit)
    in_float32 = equal("label logits in float32 - model", largest_difference(of_tokens[-1], own[list(tokens)]), limit)
    heard = [clip for clip in (*others, a) if clip.span_length]
    for clip in heard:
        tokens_of_audio = clip.span_length - text_within(clip)
        if clip.audio_token is not None and (states := audio_states(lm, clip)) != tokens_of_audio:
            raise CheckFailed(f"self-check: the audio span has {tokens_of_audio} audio tokens but {states} audio states")
    return SelfCheck(
        lens_last=lens_last,
        in_float32=in_float32,
        contrast=largest_difference(own, own_b),
        tolerance=limit,
        scale=scale,
        noise=noise,
        audio_tokens=a.span_length or None,
        text_within=text_within(a),
        moved_by_audio=[None, *(_moved_by_audio(lm, clip) for clip in heard)][-1],
        adapters=_effect_of_adapters(lm, a, own) if lm.adapters else None,
        from_prefix_cache=_from_prefix_caches(lm, heard, tokens) if prefix_caches and heard else None,
        patch=check_patching(lm, a, others, own, limit, engines, layers or lm.layers) if engines else None,
    )


def _from_prefix_caches(lm: AudioLM, clips: Sequence[EncodedClip], tokens: Sequence[int]) -> float:
    """Return how far answers are from those read over the clips' prefix caches; nan where the decoder is not built for that."""
    read = attempt(lambda: [lens(lm, clip, tokens, prefix_cache=prefix_cache_of(lm, clip))[0][-1] for clip in clips])
    return torch.nan if read is None else largest_difference(read, torch.stack([own_logits(lm, clip) for clip in clips]))


def text_within(clip: EncodedClip) -> int:
    """Count the span's tokens that stand for no audio, as the seconds that some processors write among it."""
    return 0 if clip.audio_token is None else int((clip.ids[0, clip.span] != clip.audio_token).sum())


def _other_draw(lm: AudioLM, clip: EncodedClip, own: torch.Tensor) -> float:
    """Return how far the answer moves with another seed than every run's: 0 unless the model adds noise to what it hears."""

    def draw(module: Any, inputs: Any) -> None:
        torch.manual_seed(1)

    with hooks(lm.model.register_forward_pre_hook(draw)):  # runs after the hook that seeds every run
        return largest_difference(own_logits(lm, clip), own)


def audio_states(lm: AudioLM, clip: EncodedClip) -> int:
    """Count the span's audio tokens that at h_0 hold something other than the placeholder's own embedding."""
    placeholder = lm.model.get_input_embeddings()(torch.tensor(clip.audio_token, device=lm.device))
    entered = states_at(lm, clip, clip.span)[0]  # [(stream,) 1, pos, d_model]
    heard = (entered != placeholder.to(entered)).any(dim=-1).flatten(0, -2).any(dim=0)  # [pos]
    return int(heard[clip.ids[0, clip.span] == clip.audio_token].sum())


def _moved_by_audio(lm: AudioLM, clip: EncodedClip) -> int:
    """Count the positions of h_0 that change without the audio; raise CheckFailed unless all are in the span.

    Its features are zeroed; tokens of its own take each other's places.
    """

    def deaf(value: Any) -> Any:
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            return torch.zeros_like(value)
        if clip.audio_token is None and per_token(value, clip.ids):
            return torch.cat([value[:, : clip.span.start], value[:, clip.span].roll(1, 1), value[:, clip.span.stop :]], dim=1)
        return value

    other = replace(clip, inputs={name: deaf(value) for name, value in clip.inputs.items()})
    heard, unheard = (states_at(lm, c, slice(None))[0] for c in (clip, other))
    moved = (heard != unheard).any(dim=-1).flatten(0, -2).any(dim=0).nonzero().flatten().tolist()  # [pos]
    if not moved or moved[0] < clip.span.start or moved[-1] >= clip.span.stop:
        raise CheckFailed(f"self-check: the audio moves {len(moved)} positions of the input, and they are not those of the span")
    return len(moved)


def _effect_of_adapters(lm: AudioLM, clip: EncodedClip, own: torch.Tensor) -> float:
    lm.model.disable_adapters()
    without = own_logits(lm, clip)
    lm.model.enable_adapters()
    if not (effect := largest_difference(own, without)):
        raise CheckFailed(f"self-check: the LoRA adapter {', '.join(lm.adapters)} that the model hears through changes nothing")
    return effect
