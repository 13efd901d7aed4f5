"""What the image provides: interpreter, distributions, CUDA."""
