"""A RunPod worker that speaks with a cloned voice: F5-TTS, made ready by preheat."""
