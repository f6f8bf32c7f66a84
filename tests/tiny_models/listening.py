"""A model that carries the words and the voice of a clip to the last position and answers with the words; how far it reads the
voice is planted.

Its audio states hold two one-hot codes. Block COPIES copies the mean of both to every position; the MLP of the block after it
adds words + `reads` x voice to the dimensions that the head reads. So the voice's label is ahead where (1 + a) x `reads` > 1.
"""

from collections.abc import Sequence
from pathlib import Path

import torch

from common.clips.manifest import LABELS, Sample
from common.model.encoding import encode_clip
from common.model.lm import AudioLM
from common.model.load import load_model
from common.model.prompts import PROMPTS
from tests.tiny_models.tiny import save_tiny_model

COPIES = 1
_OUT, _CONSTANT = 20, 31  # of d_model: 0 words, 5 voice, 10 and 15 their copies, 20 what the head reads, 31 the same everywhere


def listening_model(folder: Path, samples: Sequence[Sample], *, reads: float) -> AudioLM:
    lm = load_model(str(save_tiny_model(folder, only_block=COPIES)), device=torch.device("cpu"), dtype=torch.float32)
    with torch.no_grad():
        _wire(lm, reads)
    _hear(lm, samples)
    return lm


def _wire(lm: AudioLM, reads: float) -> None:
    for name, weights in lm.model.model.language_model.named_parameters():
        if "norm" in name:
            weights.fill_(1)
    embeddings, head = lm.model.get_input_embeddings().weight, lm.model.get_output_embeddings().weight
    embeddings[:, :25] = 0
    embeddings[:, _CONSTANT] = 3
    attention = lm.blocks[COPIES].self_attn
    for part in (attention.q_proj, attention.k_proj, attention.v_proj):
        part.weight.zero_(), part.bias.zero_()
    attention.o_proj.weight.zero_()
    lm.blocks[COPIES].mlp.down_proj.weight.zero_()
    for kv_head, query_head in enumerate((0, 2)):  # one for the words, one for the voice
        attention.v_proj.weight[8 * kv_head : 8 * kv_head + 5, 5 * kv_head : 5 * kv_head + 5] = torch.eye(5)
        copies = slice(10 + 5 * kv_head, 15 + 5 * kv_head)
        attention.o_proj.weight[copies, 8 * query_head : 8 * query_head + 5] = 4 * torch.eye(5)
    mlp = lm.blocks[COPIES + 1].mlp
    for part in (mlp.gate_proj, mlp.up_proj, mlp.down_proj):
        part.weight.zero_()
    mlp.gate_proj.weight[:5, _CONSTANT] = 5  # the same for all labels, so that what passes is linear in them
    mlp.up_proj.weight[:5, 10:15], mlp.up_proj.weight[:5, 15:20] = torch.eye(5), reads * torch.eye(5)
    mlp.down_proj.weight[_OUT : _OUT + 5, :5] = 0.02 * torch.eye(5)  # about as large as the copies
    head[:, 10:25] = 0
    ids = [lm.processor.tokenizer.convert_tokens_to_ids(label) for label in LABELS]
    head[ids] = 0
    head[ids, _OUT : _OUT + 5] = 20 * torch.eye(5)


def _hear(lm: AudioLM, samples: Sequence[Sample]) -> None:
    """Put the codes of each clip's labels into its audio states; the clip is known by its features."""
    codes = {
        _key(encode_clip(lm, s.audio, PROMPTS["speaker"]).inputs["input_features"]): (s.semantic_label, s.prosody_label)
        for s in samples
    }
    heard: list[tuple[str, str] | None] = []

    def hear(_: object, args: tuple, kwargs: dict) -> None:
        heard.append(codes.get(_key(args[0] if args else kwargs["input_features"])))

    def code(_: object, args: tuple, out: torch.Tensor) -> torch.Tensor:
        out = 0.5 * out
        out[..., :25], out[..., _CONSTANT] = 0, 3
        if labels := heard.pop():  # silence of the self-check is no clip
            for start, label in zip((0, 5), labels):
                out[..., start + LABELS.index(label)] = 3
        return out

    lm.model.model.audio_tower.register_forward_pre_hook(hear, with_kwargs=True)
    lm.model.model.multi_modal_projector.register_forward_hook(code)


def _key(features: torch.Tensor) -> float:
    return round(float(features.double().sum()), 3)
