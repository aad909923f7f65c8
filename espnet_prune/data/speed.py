"""Speed perturbation by resampling: three-fold training data for factors 0.9, 1.0, 1.1.

Source: Ko et al. 2015, "Audio augmentation for speech recognition". Pitch and tempo change
together; the resampling is soxr's, done whenever an utterance is read, so that nothing is copied:
the same samples come out in every process and every epoch.
"""

import numpy
import soxr


def perturb(samples: numpy.ndarray, factor: float, sample_rate: int) -> numpy.ndarray:
    """Samples (n,) int16, played ``factor`` times as fast, (``perturbed_length(n, factor)``,)."""
    if factor == 1:
        return samples
    return soxr.resample(samples, sample_rate * factor, sample_rate).astype(numpy.int16)


def perturbed_length(samples: int, factor: float) -> int:
    """How many samples are left of so many, as soxr rounds."""
    return int(samples / factor + 0.5)
