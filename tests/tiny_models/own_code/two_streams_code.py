"""A model in the shape of Kimi-Audio: two streams of token ids are added up, and audio enters as tokens of the clip's own.

Continuous features are added at these too. A second list of blocks branches off within the first, and the logits are a pair, of
speech and of text. The published checkpoint has no processor of transformers: here is one, around what its prompt manager makes.
"""

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel, ProcessorMixin, WhisperFeatureExtractor
from transformers.feature_extraction_utils import BatchFeature
from transformers.modeling_outputs import CausalLMOutputWithPast

from .remote_code import Stage

CODES, STRIDE = 16, 4  # tokens of speech; frames of the extractor in one of them


class TwoStreamsConfig(PretrainedConfig):
    model_type = "two_streams"

    def __init__(self, entries=300, wide=32, deep=4, branch=1, blank=0, features=True, **more):
        self.entries, self.wide, self.num_hidden_layers, self.branch = entries, wide, deep, branch
        self.blank, self.features = blank, features
        super().__init__(**more)


class TwoStreamsProcessor(ProcessorMixin):
    def __init__(self, tokenizer=None, chat_template=None):
        super().__init__(tokenizer, chat_template=chat_template)
        self.ears = WhisperFeatureExtractor(feature_size=16, chunk_length=1)

    def apply_chat_template(self, messages, **_):
        one = self.tokenizer.convert_tokens_to_ids
        speech, text, heard, frames = [], [], [], None
        for message in messages:
            if message["role"] != "user":
                raise ValueError(f"no role {message['role']}")
            speech.append(one("<|user|>"))
            for part in message["content"]:
                if part["type"] == "text":
                    ids = self.tokenizer.encode(part["text"], add_special_tokens=False)
                    text += [one("<|blank|>")] * (len(speech) - len(text)) + ids
                    speech += [one("<|blank|>")] * len(ids)
                else:
                    frames = self.frames(part["audio"])
                    book = torch.randn(frames.shape[-1], CODES, generator=torch.Generator().manual_seed(0))
                    codes = ((frames - frames.mean(-1, keepdim=True)) @ book).argmax(-1)
                    speech += [one("<|media|>"), *(len(self.tokenizer) + codes[0]).tolist(), one("<|/media|>")]
                    heard = range(len(speech) - 1 - codes.shape[1], len(speech) - 1)
        speech += [one("<|end|>"), one("<|assistant|>")]
        text += [one("<|blank|>")] * (len(speech) - len(text))
        streams = {"input_ids": torch.tensor([speech]), "text_input_ids": torch.tensor([text])}
        if frames is not None:
            streams |= {"whisper_input_feature": frames}
        return BatchFeature(streams | {"is_continuous_mask": torch.tensor([[i in heard for i in range(len(speech))]])})

    def frames(self, wave):
        mel = self.ears(wave, sampling_rate=self.ears.sampling_rate, return_tensors="pt").input_features
        length = -(-min(len(wave), self.ears.n_samples) // (self.ears.hop_length * STRIDE))
        return mel[..., : length * STRIDE].transpose(1, 2).unflatten(1, (-1, STRIDE)).flatten(2)


class Streams(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.entries, config.wide)
        self.layers = nn.ModuleList(Stage(config.wide, i) for i in range(config.num_hidden_layers))
        self.norm = nn.LayerNorm(config.wide)
        self.mimo_layers = nn.ModuleList(Stage(config.wide, config.num_hidden_layers + i) for i in range(2))
        self.mimo_norm = nn.LayerNorm(config.wide)
        self.vq_adaptor = nn.Linear(16 * STRIDE, config.wide)

    def forward(self, input_ids, text_input_ids, feature, mask, cache):
        h = self.embed_tokens(input_ids)
        if feature is not None and self.config.features:
            spread = torch.zeros(*input_ids.shape, feature.shape[-1]).to(feature)
            spread[mask] = feature[0]
            h = torch.where(mask[..., None], (h + self.vq_adaptor(spread)) * 2**0.5, h)
        h = h + self.embed_tokens(text_input_ids)
        branch = h
        for number, layer in enumerate(self.layers):
            h = layer(h, cache)
            if number == self.config.branch:
                branch = h.clone()
        for layer in self.mimo_layers:
            branch = layer(branch, cache)
        return self.norm(h), self.mimo_norm(branch)


class TwoStreams(PreTrainedModel):
    config_class = TwoStreamsConfig

    def __init__(self, config):
        super().__init__(config)
        self.model = Streams(config)
        self.lm_head = nn.Linear(config.wide, config.entries, bias=False)
        self.mimo_output = nn.Linear(config.wide, config.entries, bias=False)
        self.post_init()

    def _init_weights(self, module):
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.3)

    def get_input_embeddings(self):
        return self.model.embed_tokens

    def get_output_embeddings(self):
        return self.lm_head

    def forward(self, input_ids, text_input_ids, whisper_input_feature=None, is_continuous_mask=None, past_key_values=None, **_):
        h, branch = self.model(input_ids, text_input_ids, whisper_input_feature, is_continuous_mask, past_key_values)
        return CausalLMOutputWithPast(logits=(self.mimo_output(branch), self.lm_head(h)), past_key_values=past_key_values)
