"""An ESPnet data type for 16-bit samples in Kaldi archives.

ESPnet's own ``kaldi_ark`` hands the integers on unscaled, while its file reader gives [-1, 1].
"""

import numpy

PCM_ARCHIVE = "pcm_archive"
FULL_SCALE = 32768.0


def _scaled(samples: numpy.ndarray) -> numpy.ndarray:
    return samples.astype(numpy.float32) / FULL_SCALE


def register() -> None:
    """Adds the type to ESPnet's two tables, for training and for statistics."""
    from espnet2.train import dataset, iterable_dataset

    class Adapter(dataset.AdapterForSoundScpReader):
        """Samples (samples,) by utterance, scaled to [-1, 1]."""

        def __getitem__(self, key: str) -> numpy.ndarray:
            return _scaled(super().__getitem__(key))

    dataset.DATA_TYPES[PCM_ARCHIVE] = {
        "func": lambda path: Adapter(dataset.kaldi_io.load_scp(path)),
        "kwargs": [],
        "help": "16-bit samples in Kaldi archives, scaled to [-1, 1]",
    }
    iterable_dataset.DATA_TYPES[PCM_ARCHIVE] = lambda entry: _scaled(
        dataset.kaldi_io.load_mat(entry)[1]
    )
