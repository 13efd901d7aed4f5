"""a * x + y on the GPU."""

import torch  # noqa: F401  # its libraries must be loaded before the extension's

from saxpy._ext import saxpy as saxpy
