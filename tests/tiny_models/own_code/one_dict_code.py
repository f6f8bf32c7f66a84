"""A model in the shape of MiniCPM-o: a language model of transformers behind a forward that takes all inputs in one dict.

Audio takes the places that the processor lists as bounds. What stands there is a token that the prompt has elsewhere too, as in
Ultravox; marks part the seconds of a longer clip.
"""

import torch
from torch import nn
from transformers import PreTrainedModel, ProcessorMixin, Qwen2Config, Qwen2ForCausalLM, WhisperFeatureExtractor
from transformers.feature_extraction_utils import BatchFeature

STRIDE, CHUNK = 4, 10  # frames of the extractor in a position, positions in a chunk
TAG, FILLER = "(<audio>./</audio>)", "<|im_end|>"


class OneDictConfig(Qwen2Config):
    model_type = "one_dict"


class OneDictProcessor(ProcessorMixin):
    def __init__(self, tokenizer=None, chat_template=None):
        super().__init__(tokenizer, chat_template=chat_template)
        self.feature_extractor = WhisperFeatureExtractor(feature_size=16, chunk_length=1)

    def apply_chat_template(self, messages, chat_template=None, **_):
        said, audios = [], []
        for message in messages:
            parts = [part["text"] if part["type"] == "text" else TAG for part in message["content"]]
            audios += [part["audio"] for part in message["content"] if part["type"] == "audio"]
            said.append(f"<|im_start|>{message['role']}\n" + "\n".join(parts) + "<|im_end|>\n")
        return self("".join(said) + "<|im_start|>assistant\n", audios=audios)

    def __call__(self, text, images=None, audios=(), **_):
        ears, features, lengths = self.feature_extractor, [], []
        for wave in audios:
            mel = ears(wave, sampling_rate=ears.sampling_rate, return_tensors="pt").input_features
            count = -(-min(len(wave), ears.n_samples) // (ears.hop_length * STRIDE))
            chunks = [min(CHUNK, count - start) for start in range(0, count, CHUNK)]
            text = text.replace(TAG, "".join(f"<|audio_start|>{FILLER * n}<|audio_end|>" for n in chunks), 1)
            features.append(mel[..., : count * STRIDE])
            lengths.append(torch.tensor([count]))
        ids = self.tokenizer(text, return_tensors="pt").input_ids
        start, end = (
            (ids[0] == self.tokenizer.convert_tokens_to_ids(f"<|audio_{mark}|>")).nonzero()[:, 0] for mark in ("start", "end")
        )
        whole = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": [[]], "tgt_sizes": [[]]}
        bounds = {"audio_bounds": [torch.stack([start + 1, end], dim=1)], "audio_feature_lens": lengths}
        return BatchFeature(whole | ({"audio_features": torch.cat(features)} | bounds if features else {}))


class OneDict(PreTrainedModel):
    config_class = OneDictConfig
    _supports_sdpa = True

    def __init__(self, config):
        super().__init__(config)
        self.llm = Qwen2ForCausalLM(config)
        self.apm = nn.ModuleList([nn.Linear(16, config.hidden_size)])
        self.audio_avg_pooler = nn.AvgPool1d(STRIDE)
        self.post_init()

    def _init_weights(self, module):
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.3)

    def get_input_embeddings(self):
        return self.llm.get_input_embeddings()

    def get_output_embeddings(self):
        return self.llm.lm_head

    def forward(self, data, **kwargs):
        h = self.llm.get_input_embeddings()(data["input_ids"]).clone()
        assert data["pixel_values"] == [[]], "no images here"
        if "audio_features" in data:
            heard = self.audio_avg_pooler(self.apm[0](data["audio_features"].transpose(1, 2)).transpose(1, 2)).transpose(1, 2)
            used = 0
            for start, end in data["audio_bounds"][0].tolist():
                h[0, start:end] = heard[0, used : used + end - start].to(h)
                used += end - start
        return self.llm(input_ids=None, position_ids=data["position_ids"].long(), inputs_embeds=h, **kwargs)
