"""What a checkpoint brings along: config, processor and model of nobody's family, with names that nothing else has."""

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel, ProcessorMixin, WhisperFeatureExtractor
from transformers.feature_extraction_utils import BatchFeature
from transformers.modeling_outputs import CausalLMOutputWithPast

STRIDE = 20  # frames of the extractor in a position of the span


class OwnConfig(PretrainedConfig):
    model_type = "own"

    def __init__(self, entries=300, mark=0, wide=32, deep=3, **more):
        self.entries, self.mark, self.wide, self.num_hidden_layers = entries, mark, wide, deep
        super().__init__(**more)


class OwnProcessor(ProcessorMixin):
    audio_token = "<|AUDIO|>"

    def __init__(self, tokenizer=None, chat_template=None):
        super().__init__(tokenizer, chat_template=chat_template)
        self.ears = WhisperFeatureExtractor(feature_size=16, chunk_length=1)

    def __call__(self, text=None, audio=None, **_):
        text, audio = (x[0] if isinstance(x, list) else x for x in (text, audio))
        frames = self.ears(audio, sampling_rate=self.ears.sampling_rate, return_tensors="pt", padding="max_length")
        length = -(-min(len(audio), self.ears.n_samples) // (self.ears.hop_length * STRIDE))
        tokens = self.tokenizer(text.replace(self.audio_token, self.audio_token * length), return_tensors="pt")
        return BatchFeature({"input_ids": tokens.input_ids, "sound": frames.input_features[..., : length * STRIDE]})


class Stage(nn.Module):
    def __init__(self, wide, number):
        super().__init__()
        self.number, self.before, self.between = number, nn.LayerNorm(wide), nn.LayerNorm(wide)
        self.mix, self.out = nn.Linear(wide, 3 * wide), nn.Linear(wide, wide)
        self.think = nn.Sequential(nn.Linear(wide, 2 * wide), nn.GELU(), nn.Linear(2 * wide, wide))

    def forward(self, flow, memory=None):
        query, key, value = (x.unflatten(-1, (4, -1)).transpose(1, 2) for x in self.mix(self.before(flow)).chunk(3, dim=-1))
        if memory is not None:
            key, value = memory.update(key, value, self.number)
        places = torch.arange(key.shape[2], device=flow.device)
        back = places[-query.shape[2] :, None] - places  # how far a position looks back: nearer ones count more
        bias = torch.where(back < 0, -torch.inf, -0.02 * back).to(query)
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        flow = flow + self.out(mixed.transpose(1, 2).flatten(-2))
        return flow + self.think(self.between(flow))


class Trunk(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.book = nn.Embedding(config.entries, config.wide)
        self.stages = nn.ModuleList(Stage(config.wide, i) for i in range(config.num_hidden_layers))
        self.end = nn.LayerNorm(config.wide)


class Own(PreTrainedModel):
    config_class = OwnConfig

    def __init__(self, config):
        super().__init__(config)
        self.hearing = nn.ModuleList([nn.Linear(16 * STRIDE, config.wide)])
        self.trunk, self.speech = Trunk(config), nn.Linear(config.wide, config.entries)
        self.post_init()

    def _init_weights(self, module):
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.3)

    def get_input_embeddings(self):
        return self.trunk.book

    def forward(self, input_ids, sound=None, past_key_values=None, **_):
        flow = self.trunk.book(input_ids)
        if sound is not None:
            heard = self.hearing[0](sound.transpose(1, 2).unflatten(1, (-1, STRIDE)).flatten(2))
            flow = flow.masked_scatter((input_ids == self.config.mark)[..., None], heard.to(flow))
        for stage in self.trunk.stages:
            flow = stage(flow, past_key_values)
        return CausalLMOutputWithPast(logits=self.speech(self.trunk.end(flow)), past_key_values=past_key_values)
