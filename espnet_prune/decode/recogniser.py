"""A saved model that turns samples into text: CTC greedy, CTC prefix search, ESPnet's joint search.

Of a transducer, greedy and joint are ESPnet's search for transducers, with one hypothesis and with
as many as are asked for.

A cut model is read by stock ``Speech2Text`` from ``model/espnet``; that every result goes through
it is the proof that ESPnet loads it.
"""

import logging
import math
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy

from espnet_prune.data.segments import split_at_pauses
from espnet_prune.decode.decode_checks import fitting_beam, special_ids
from espnet_prune.decode.decode_config import MODES, DecodeConfig
from espnet_prune.decode.language_model import LanguageModel
from espnet_prune.errors import ModelError
from espnet_prune.models.espnet.features import encoded_speech, least_samples, sample_rate_of
from espnet_prune.models.espnet.folder import model_files, own_family, read_espnet_config
from espnet_prune.models.family import Transcriber

logger = logging.getLogger(__name__)
OF_ATTENTION = ("penalty", "maxlenratio", "minlenratio")  # no transducer's search reads them
FULL_SCALE = 32768.0  # int16 to the range of ESPnet's audio reader


class Recogniser:
    """A saved model that turns samples into text.

    Args:
        folder: the model's folder, with ``espnet`` in it.
        config: the search's options.
        int8: whether its linear layers are quantised.

    Raises:
        DataError: ESPnet's configuration is damaged.
        ModelError: the folder lacks the files.
    """

    def __init__(self, folder: Path, config: DecodeConfig, int8: bool = False) -> None:
        import torch

        from espnet_prune.models import families
        from espnet_prune.models.espnet.choices import register
        from espnet_prune.surgery import load_strictly

        register()  # before ESPnet's tasks are imported
        from espnet2.bin.asr_inference import Speech2Text

        from espnet_prune.decode.prefix_search import keep_impossible
        from espnet_prune.models.espnet.build import without_error_rates

        files = model_files(folder)
        self.config = config
        asr_config = read_espnet_config(files[0])
        reads = config.lm is not None and config.lm_weight > 0
        lm = LanguageModel(config.lm, asr_config) if reads else None
        has_ctc = (asr_config.get("model_conf") or {}).get("ctc_weight") != 0.0
        beam_size = fitting_beam(config.beam_size, asr_config, files[0])
        try:
            self.search = Speech2Text(
                *map(str, files),
                beam_size=beam_size,
                ctc_weight=config.ctc_weight if has_ctc else 0.0,
                lm_weight=0.0 if lm is None else config.lm_weight,
                **({} if lm is None else lm.files),
                penalty=config.penalty,
                maxlenratio=config.maxlenratio,
                minlenratio=config.minlenratio,
            )
            state = torch.load(files[1], map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, EOFError, ValueError, UnpicklingError) as error:
            raise ModelError(
                f"{files[1].parent}: ESPnet can't load this model ({error}); its files are "
                "damaged or moved: make it again where it shall stand"
            ) from error
        self.model = self.search.asr_model
        self.model.espnet_prune_config = asr_config
        without_error_rates(self.model)
        self.transducer = self._greedy_search() if self.model.use_transducer_decoder else None
        first = self.model.ctc if self.transducer is None else self.model.decoder
        needed = zip(MODES, (first, self.model.ctc, self.model.decoder), strict=True)
        self.modes = tuple(mode for mode, part in needed if part is not None)
        # ESPnet itself would leave weights that it doesn't find random, without a word
        load_strictly(self.model, state, str(files[1]))
        if lm is not None:
            lm.check(self._scorer_of_text())
        if int8:
            from espnet_prune.decode.int8 import quantise_linear

            quantise_linear(self.model)
        self.special = special_ids(self.model)
        if self.transducer is None:
            keep_impossible(self.search.beam_search)
        for family in families():
            family.speed_up(self.model, self.search.beam_search)

    def _one_path(self, speech: numpy.ndarray) -> str:
        import torch

        with torch.no_grad():
            (best,) = self.transducer(encoded_by(self.model, speech)[0])
        return self._text(best.yseq)

    def _greedy_search(self):
        """ESPnet's greedy search of this transducer; warns of options that none of its reads."""
        from espnet2.asr.transducer.beam_search_transducer import BeamSearchTransducer

        for name in OF_ATTENTION:
            if getattr(self.config, name):
                logger.warning("%s: the search of a transducer doesn't read it", name)
        return BeamSearchTransducer(self.model.decoder, self.model.joint_network, beam_size=1)

    def _scorer_of_text(self):
        """The language model that the joint search has."""
        if self.transducer is None:
            return self.search.beam_search.scorers["lm"]
        return self.search.beam_search_transducer.lm

    def transcribe(self, samples: numpy.ndarray, mode: str, name: str = "") -> str:
        """Recognised text, its words separated by single spaces.

        Args:
            samples: int16 (samples,), at the rate ``rate_of`` gives.
            mode: one of ``modes``.
            name: name of the utterance, for the warning.

        Returns:
            The text; empty if the recording is too short for the front-end, with a warning.

        Raises:
            ModelError: the mode needs CTC or a decoder, and the model has none.
        """
        if mode not in self.modes:
            lacks = "CTC" if self.model.ctc is None else "decoder"
            raise ModelError(
                f"modes: {mode}: this model has no {lacks}; give modes: [{', '.join(self.modes)}]"
            )
        pieces = split_at_pauses(samples, rate_of(self), self.config.segment_seconds)
        return " ".join(filter(None, (self._piece(piece, mode, name) for piece in pieces)))

    def _piece(self, samples: numpy.ndarray, mode: str, name: str) -> str:
        from espnet2.legacy.nets.pytorch_backend.transformer.subsampling import TooShortUttError

        speech = samples.astype(numpy.float32) / FULL_SCALE
        try:
            least = least_samples(self.model)
            if len(speech) < least:
                raise TooShortUttError(f"the front-end needs {least}", len(speech), least)
            decoders = dict(zip(MODES, (self._greedy, self._ctc_prefix, self._joint), strict=True))
            text = decoders[mode](speech)
        except TooShortUttError as error:
            logger.warning(
                "utterance '%s': %d samples are too short to decode, its text is empty (%s)",
                name,
                len(samples),
                error,
            )
            return ""
        return " ".join(text.split())

    def _joint(self, speech: numpy.ndarray) -> str:
        results = self._searched(speech)
        if not results and self.config.minlenratio:
            self.search.minlenratio = 0.0
            results = self._searched(speech)
            self.search.minlenratio = self.config.minlenratio
        best = results[0][3] if results else None
        possible = best is not None and float(best.score) > -math.inf
        return self._text([int(token) for token in best.yseq]) if possible else ""

    def _searched(self, speech: numpy.ndarray) -> list:
        """Hypotheses of the joint search, best first."""
        found = self.search(speech)
        return found[0] if isinstance(found, tuple) else found  # intermediate CTC's are beside

    def _greedy(self, speech: numpy.ndarray) -> str:
        if self.transducer is not None:
            return self._one_path(speech)
        return self.collapsed(ctc_log_probs(self.model, speech).argmax(dim=1))

    def collapsed(self, best) -> str:
        """Text of each frame's best token, int (T,)."""
        import torch

        collapsed = torch.unique_consecutive(best).tolist()
        return self._text(collapsed)

    def _ctc_prefix(self, speech: numpy.ndarray) -> str:
        from espnet_prune.decode.prefix_search import prefix_search

        ids, _ = prefix_search(
            ctc_log_probs(self.model, speech),
            self.model.blank_id,
            self.config.beam_size,
            never=(self.model.eos,),
            penalty=self.config.penalty,
            maxlenratio=self.config.maxlenratio,
            minlenratio=self.config.minlenratio,
        )
        return self._text(ids)

    def ids(self, text: str) -> list[int]:
        """The tokens of a transcript, as the model's training has them."""
        return self.search.converter.tokens2ids(self.search.tokenizer.text2tokens(text))

    def comparable(self, text: str) -> str:
        """A transcript as its words are counted: as it is."""
        return text

    def _text(self, ids: list[int]) -> str:
        """The text of token ids; whatever the search was told, no special one is in it."""
        tokens = self.search.converter.ids2tokens([i for i in ids if i not in self.special])
        return self.search.tokenizer.tokens2text(tokens)


def rate_of(recogniser: Transcriber) -> int:
    """Rate in Hz of the samples that ``transcribe`` takes."""
    return sample_rate_of(recogniser.model.espnet_prune_config)


def ctc_log_probs(model: Any, speech: numpy.ndarray):
    """Log-probabilities (T, V) of an ESPnetASRModel's CTC, of samples (samples,) within -1 to 1."""
    import torch

    with torch.no_grad():
        return model.ctc.log_softmax(encoded_by(model, speech))[0]


def encoded_by(model: Any, speech: numpy.ndarray):
    """An ESPnetASRModel's encoder's output (1, T, D), of samples (samples,) within -1 to 1."""
    import torch

    with torch.no_grad():
        return encoded_speech(model, torch.from_numpy(speech)[None])


def open_recogniser(folder: Path, config: DecodeConfig, int8: bool = False) -> Transcriber:
    """What decodes with the model in a folder: stock ESPnet's search, or its family's own.

    Raises:
        ModelError: the folder lacks the files, or they are damaged; int8 of such a family.
    """
    family = own_family(folder)
    if family is None:
        return Recogniser(folder, config, int8)
    if int8:
        raise ModelError(
            f"{folder}: no int8 of {family.title} in torch; see espnet-prune export_onnx --int8"
        )
    return family.open_recogniser(folder, config.segment_seconds)
