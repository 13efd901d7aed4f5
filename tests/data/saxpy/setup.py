"""Builds against the torch that is there, as flash-attn does: it must be importable here."""

from setuptools import setup
from torch.utils.cpp_extension import BuildExtension, CUDAExtension

setup(
    name="preheat-saxpy",
    version="1.0",
    packages=["saxpy"],
    ext_modules=[CUDAExtension("saxpy._ext", ["saxpy.cu"])],
    cmdclass={"build_ext": BuildExtension},
)
