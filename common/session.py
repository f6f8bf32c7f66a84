"""Make ready for a run: check the clips, load the model, find the label tokens, check the identities."""

import argparse
from dataclasses import dataclass
from typing import Any

import torch
from tqdm import tqdm

from common.checks import CheckFailed, check_finite, self_check
from common.models import AudioLM, EncodedClip, choose_device, choose_dtype, encode_clip, load_clip, load_model
from common.readout import Readout, fill_prompt, get_prompt, resolve_readout
from common.samples import LABELS, InputError, Sample
from common.tracing import UnknownBlock


@dataclass(frozen=True)
class Session:
    """A model that has been checked on this run's clips, with the prompt and the readout of the run."""

    lm: AudioLM
    prompt: str
    readout: Readout
    first: EncodedClip
    checks: dict[str, Any]

    def encode(self, sample: Sample) -> EncodedClip:
        """Encode a clip. Raises CheckFailed where its prefix or tail differ from the first clip's: only the audio may."""
        clip = encode_clip(self.lm, sample.audio, self.prompt)
        if clip.prefix_ids != self.first.prefix_ids or clip.tail_ids != self.first.tail_ids:
            raise CheckFailed(f"{sample.sample_id}: the tokens around the audio differ from those of the first clip")
        return clip

    def label_logits(self, logits: torch.Tensor, name: str) -> torch.Tensor:
        """Return the label columns of `logits` [..., vocab] in main memory; raises CheckFailed, naming `name`, for nan."""
        label_logits = self.readout.label_logits(logits).cpu()
        check_finite(label_logits, name)
        return label_logits

    @property
    def layers(self) -> int:
        """The number of points h_0..h_L, one more than there are blocks."""
        return len(self.lm.blocks) + 1

    def describe(self, prompt_name: str) -> str:
        """Say what every unit of the run goes through."""
        return f"{self.layers} layers, prompt {prompt_name}, {self.lm.dtype} on {self.lm.device}"

    def facts(self) -> dict[str, Any]:
        """Return what run.json says of the session."""
        return {
            "prompt_text": fill_prompt(self.prompt),
            "label_tokens": dict(zip(LABELS, self.readout.tokens)),
            "model_class": type(self.lm.model).__name__,
            "blocks": len(self.lm.blocks),
            "self_check": self.checks,
        }


def open_session(args: argparse.Namespace, samples: list[Sample]) -> Session:
    """Check every clip, load the model and check it on two of the clips. Raises InputError or CheckFailed; writes nothing."""
    device = choose_device(args.device)
    prompt = get_prompt(args.prompt)
    lm = load_model(args.model, device=device, dtype=choose_dtype(args.dtype, device))
    lengths = [len(load_clip(lm, s.audio)) for s in tqdm(samples, desc="checking the audio", leave=False)]
    first = encode_clip(lm, samples[0].audio, prompt)
    readout = resolve_readout(lm.processor.tokenizer, first.tail_ids)
    # A clip as long as the first makes the stricter patch oracle; else the last one serves, or the first itself if alone.
    partner = next((s for s, n in zip(samples[1:], lengths[1:]) if n == lengths[0]), samples[-1])
    other = encode_clip(lm, partner.audio, prompt)
    try:
        checks = self_check(lm, first, other)
    except UnknownBlock as error:
        raise InputError(f"--model {args.model}: {error}; this kind of decoder is not supported yet") from None
    return Session(lm, prompt, readout, first, checks)
