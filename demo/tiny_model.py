"""Makes a real F5-TTS of 0.3 M random parameters, and a wav2vec2 to align with.

`python tiny_model.py MANIFEST DIRECTORY`, where preheat is installed. They know no language, but go
the whole way that the large ones do: tokens, diffusion transformer, solver, vocoder; convolutions,
transformer, CTC.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import preheat

MODEL = """
model:
  name: Tiny
  tokenizer: custom
  backbone: DiT
  arch:
    dim: 64
    depth: 2
    heads: 2
    ff_mult: 2
    text_dim: 32
    conv_layers: 1
    text_mask_padding: true
    attn_backend: torch
  mel_spec:
    target_sample_rate: 24000
    n_mel_channels: 100
    hop_length: 256
    win_length: 1024
    n_fft: 1024
    mel_spec_type: vocos
"""

VOCOS = """
feature_extractor:
  class_path: vocos.feature_extractors.MelSpectrogramFeatures
  init_args:
    sample_rate: 24000
    n_fft: 1024
    hop_length: 256
    n_mels: 100
    padding: center
backbone:
  class_path: vocos.models.VocosBackbone
  init_args:
    input_channels: 100
    dim: 32
    intermediate_dim: 96
    num_layers: 2
head:
  class_path: vocos.heads.ISTFTHead
  init_args:
    dim: 32
    n_fft: 1024
    hop_length: 256
    padding: center
"""


def make_voice(directory: Path) -> None:
    """Write model.yaml, model.safetensors and a vocos directory."""
    import torch
    from f5_tts.infer import utils_infer
    from f5_tts.model import CFM, DiT
    from f5_tts.model.utils import get_tokenizer
    from omegaconf import OmegaConf
    from safetensors.torch import save_file
    from vocos import Vocos

    torch.manual_seed(0)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "model.yaml").write_text(MODEL, encoding="utf-8")
    vocabulary = Path(utils_infer.__file__).parent / "examples" / "vocab.txt"
    characters, size = get_tokenizer(str(vocabulary), "custom")
    arch = OmegaConf.create(MODEL).model.arch
    model = CFM(
        transformer=DiT(**arch, text_num_embeds=size, mel_dim=100),
        mel_spec_kwargs={
            "n_fft": 1024,
            "hop_length": 256,
            "win_length": 1024,
            "n_mel_channels": 100,
            "target_sample_rate": 24000,
            "mel_spec_type": "vocos",
        },
        vocab_char_map=characters,
    )
    with torch.no_grad():
        for parameter in model.parameters():
            # What starts at zero lets nothing of the input through.
            parameter.add_(torch.randn_like(parameter) * 0.02)
    weights = {f"ema_model.{name}": value for name, value in model.state_dict().items()}
    save_file(weights, directory / "model.safetensors")

    vocoder = directory / "vocos"
    vocoder.mkdir(exist_ok=True)
    (vocoder / "config.yaml").write_text(VOCOS, encoding="utf-8")
    vocos = Vocos.from_hparams(str(vocoder / "config.yaml"))
    torch.save(vocos.state_dict(), vocoder / "pytorch_model.bin")


def make_aligner(directory: Path) -> None:
    """Write a wav2vec2 that knows the letters of English."""
    import torch
    from transformers import (
        Wav2Vec2Config,
        Wav2Vec2CTCTokenizer,
        Wav2Vec2FeatureExtractor,
        Wav2Vec2ForCTC,
        Wav2Vec2Processor,
    )

    torch.manual_seed(0)
    directory.mkdir(parents=True, exist_ok=True)
    characters = ["<pad>", "<s>", "</s>", "<unk>", "|", "'", *"abcdefghijklmnopqrstuvwxyz"]
    vocabulary = directory / "vocab.json"
    vocabulary.write_text(json.dumps({each: n for n, each in enumerate(characters)}))
    Wav2Vec2Processor(
        feature_extractor=Wav2Vec2FeatureExtractor(),
        tokenizer=Wav2Vec2CTCTokenizer(str(vocabulary)),
    ).save_pretrained(directory)
    config = Wav2Vec2Config(
        vocab_size=len(characters),
        hidden_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        conv_dim=(16,) * 7,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
        pad_token_id=0,
    )
    Wav2Vec2ForCTC(config).save_pretrained(directory)


if __name__ == "__main__":
    preheat.warm(sys.argv[1])
    make_voice(Path(sys.argv[2]))
    make_aligner(Path(sys.argv[2]) / "wav2vec2")
