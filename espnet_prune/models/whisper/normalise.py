"""English transcripts made comparable before they are scored, as Whisper's authors do.

LibriSpeech's references are upper-case words without punctuation, numbers spelled; Whisper writes
"Mr. Smith's 21 colors". Rules: transformers' ``EnglishTextNormalizer`` (Radford et al. 2022,
arXiv 2212.04356, appendix C: lower case, no punctuation, bracketed text, or fillers; contractions
and titles spelled out; numbers as digits), with the list of British and American spellings that
the package ``whisper_normalizer`` carries: a folder of a model may lack it, and all systems of a
table must be normalised alike. That package's own rules are not used: they differ from Whisper's
("cause" becomes "because").
"""

import functools
import json
from collections.abc import Callable
from importlib import metadata, resources

from espnet_prune.errors import EnvironmentProblem
from espnet_prune.models.huggingface.build import import_transformers

SPELLINGS = "whisper_normalizer"


@functools.cache
def english_normaliser() -> Callable[[str], str]:
    """What turns a transcript, reference or hypothesis, into comparable words.

    Raises:
        EnvironmentProblem: transformers or whisper_normalizer isn't installed.

    Example:
        >>> english_normaliser()("Mister Smith's TWENTY ONE colours, hmm!")
        'mister smith is 21 colors'
    """
    import_transformers()
    from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

    try:
        spellings = resources.files(SPELLINGS).joinpath("normalizers/english.json")
    except ModuleNotFoundError as error:
        raise EnvironmentProblem(
            f"{SPELLINGS} is missing; install the extra: pip install 'espnet_prune[hf]'"
        ) from error
    return EnglishTextNormalizer(json.loads(spellings.read_text(encoding="utf-8")))


def normalisation_name() -> str:
    """How texts were normalised, with versions, for a report."""
    rules, list_of = metadata.version("transformers"), metadata.version(SPELLINGS)
    return f"EnglishTextNormalizer of transformers {rules}, spellings of {SPELLINGS} {list_of}"
