"""A worker that uses what was warmed. It knows no package manager, only `preheat.warm`."""

from __future__ import annotations

import preheat

TEXT = "warm hands make light work"


def main() -> None:
    """Warm, choose, and use each package once, without any network."""
    ready = preheat.warm("demo/preheat.toml")
    attention = ready.choose("attention")
    timing = ready.choose("word-timing")
    start = "warm" if ready.warm else "cold"
    print(f"{start} start in {ready.seconds * 1000:.1f} ms")
    print(f"attention by {attention or 'nothing'}, word timing by {timing or 'nothing'}")

    tokens = tokenise(TEXT)
    print(f"transformers: {TEXT!r} is {len(tokens)} tokens")
    if attention:
        print(f"transformers: a small Llama answers in logits of shape {think(tokens, attention)}")
    if ready["google-cloud-speech"].ok:
        print(f"google-cloud-speech: {recognition()}")
    if timing == "whisperx":
        print(f"whisperx: aligns with {aligner('en')}")


def tokenise(text: str) -> list[int]:
    """Train a tokenizer on one sentence and read it back."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    model = Tokenizer(models.BPE())
    model.pre_tokenizer = pre_tokenizers.Whitespace()
    model.train_from_iterator([text], trainers.BpeTrainer(show_progress=False))
    tokens: list[int] = PreTrainedTokenizerFast(tokenizer_object=model)(text)["input_ids"]
    return tokens


def think(tokens: list[int], attention: str) -> tuple[int, ...]:
    """Run a language model with random weights over the tokens."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=max(tokens) + 1,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        attn_implementation="flash_attention_2" if attention == "flash-attn" else "sdpa",
    )
    gpu = torch.cuda.is_available()
    model = LlamaForCausalLM(config).to("cuda" if gpu else "cpu")
    if gpu:  # flash-attn computes in half precision only
        model = model.to(torch.bfloat16)
    with torch.inference_mode():
        return tuple(model(torch.tensor([tokens], device=model.device)).logits.shape)


def recognition() -> str:
    """Say what would be asked of the service."""
    from google.cloud import speech

    config = speech.RecognitionConfig(
        encoding=speech.RecognitionConfig.AudioEncoding.LINEAR16,
        sample_rate_hertz=16_000,
        language_code="en-US",
        enable_word_time_offsets=True,
    )
    return f"{config.encoding.name} at {config.sample_rate_hertz} Hz, with word times"


def aligner(language: str) -> str:
    """Name the model that whisperx aligns this language with."""
    import whisperx.alignment

    return str(whisperx.alignment.DEFAULT_ALIGN_MODELS_TORCH[language])


if __name__ == "__main__":
    main()
