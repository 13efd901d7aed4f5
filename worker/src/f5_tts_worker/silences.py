"""Where nobody speaks: the places at which audio can be cut. Pure functions of samples."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FRAME = 0.02  # s: one step of loudness; speech sounds are longer
_PAUSE = 0.2  # s: a cut lies in the middle of the quietest stretch of this length
_QUIET = 0.02  # of the loudest frame (-34 dB): below it nobody speaks


def cuts(samples: NDArray[np.float32], sample_rate: int, longest: float) -> tuple[float, ...]:
    """Say where to cut audio so that no piece is longer than `longest` seconds.

    Each cut lies in the quietest place of the second half of what the piece may be. Without its
    first element, 0, and its last, the duration, the answer is empty where nothing has to be cut.
    """
    duration = len(samples) / sample_rate
    loudness = _loudness(samples, sample_rate)
    width = max(1, round(_PAUSE / _FRAME))
    smooth = np.convolve(loudness, np.ones(width) / width, mode="same")
    found = [0.0]
    while duration - found[-1] > longest:
        first = int((found[-1] + longest / 2) / _FRAME)
        last = max(first + 1, int((found[-1] + longest) / _FRAME))
        found.append((first + int(np.argmin(smooth[first:last]))) * _FRAME)
    return (*found, duration)


def bounds(samples: NDArray[np.float32], sample_rate: int) -> tuple[float, float]:
    """Return when the first sound begins and the last one ends, in seconds; all, if all is quiet.

    Half a frame is left on both sides, for sounds that begin softly.
    """
    duration = len(samples) / sample_rate
    loudness = _loudness(samples, sample_rate)
    loud = np.flatnonzero(loudness > _QUIET * float(loudness.max(initial=0.0)))
    if loud.size == 0:
        return 0.0, duration
    start = max(0.0, (float(loud[0]) - 0.5) * _FRAME)
    return start, min(duration, (float(loud[-1]) + 1.5) * _FRAME)


def _loudness(samples: NDArray[np.float32], sample_rate: int) -> NDArray[np.float64]:
    """The root mean square of each frame; what does not fill the last frame counts as silence."""
    step = max(1, round(_FRAME * sample_rate))
    frames = -(-len(samples) // step)
    padded = np.zeros(frames * step, dtype=np.float64)
    padded[: len(samples)] = samples
    rows: NDArray[np.float64] = np.sqrt(np.mean(np.square(padded.reshape(frames, step)), axis=1))
    return rows
