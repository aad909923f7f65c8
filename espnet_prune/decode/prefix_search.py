"""CTC prefix beam search: the text whose alignments together are the most probable.

Greedy decoding takes the one best alignment; here the probabilities of all alignments of a prefix
are added up (Hori, Watanabe, Hershey 2017, "Joint CTC/attention decoding", ACL, algorithm 2). The
search is ESPnet's own with its CTC scorer alone; ours is only that tokens which no frame gives a
chance are left out beforehand, because ESPnet, without a decoder to choose candidates, tries the
whole vocabulary at every step. The probabilities of what is left are not changed by that.
"""

import math

import torch
from espnet2.legacy.nets.batch_beam_search import BatchBeamSearch
from espnet2.legacy.nets.scorers.ctc import CTCPrefixScorer
from espnet2.legacy.nets.scorers.length_bonus import LengthBonus
from torch import Tensor

# A token below this at every frame is left out; it costs a hypothesis at least this factor.
LEAST_PROBABILITY = 1e-3
BLANK = 0  # in the reduced vocabulary, where ESPnet's scorer expects it
CTC = "ctc"  # ESPnet's name of this scorer
IMPOSSIBLE = -1e10  # ESPnet's logarithm of 0


class _Given:
    """A CTC layer whose outputs are its inputs."""

    @staticmethod
    def log_softmax(log_probabilities: Tensor) -> Tensor:
        return log_probabilities


def keep_impossible(search: BatchBeamSearch) -> None:
    """Puts ``PrefixScorer`` into a beam search in place of ESPnet's scorer, if it has one."""
    scorer = search.part_scorers.get(CTC)
    if isinstance(scorer, CTCPrefixScorer):
        search.scorers[CTC] = search.part_scorers[CTC] = PrefixScorer(scorer.ctc, scorer.eos)


class PrefixScorer(CTCPrefixScorer):
    """ESPnet's, but what is impossible stays so.

    ESPnet adds up differences of prefixes' log-probabilities. From one IMPOSSIBLE prefix to the
    next, too long a text or one with the blank in it, the difference is anything: where a
    recording is short for the beam, or the tokens are few, such a text would win.
    """

    def batch_score_partial(self, y: Tensor, ids: Tensor, state, x: Tensor) -> tuple:
        scores, state = super().batch_score_partial(y, ids, state, x)
        log_psi = state[1]  # of each prefix with each next token, (N, V)
        return scores.masked_fill(log_psi < IMPOSSIBLE / 2, -math.inf), state


@torch.no_grad()
def prefix_search(
    log_probabilities: Tensor,
    blank: int,
    beam_size: int,
    *,
    never: tuple[int, ...] = (),
    penalty: float = 0.0,
    maxlenratio: float = 0.0,
    minlenratio: float = 0.0,
) -> tuple[list[int], float]:
    """The most probable token sequence that a beam search finds.

    Args:
        log_probabilities: log-probabilities of CTC, (T, V), for one utterance.
        blank: the blank's column.
        beam_size: number of prefixes kept at each length; at most that of the tokens and 2.
        never: columns that are no text, such as the end of a sentence.
        penalty: added to the score for each token.
        maxlenratio: longest text, of the frames; 0 for ESPnet's end detection.
        minlenratio: shortest one.

    Returns:
        The columns of the tokens, and the score: the log-probability of all their alignments,
        and the penalties.
    """
    columns = _heard(log_probabilities, (blank, *never), beam_size)
    reduced = torch.cat([log_probabilities[:, [blank]], log_probabilities[:, columns]], dim=1)
    end = reduced.shape[1]
    reduced = torch.nn.functional.pad(reduced, (0, 1), value=IMPOSSIBLE)
    size = reduced.shape[1]
    search = BatchBeamSearch(
        scorers={CTC: PrefixScorer(_Given(), eos=end), "length_bonus": LengthBonus(size)},
        weights={CTC: 1.0, "length_bonus": penalty},
        beam_size=min(beam_size, size),
        vocab_size=size,
        sos=end,
        eos=end,
    )
    found = search(reduced, maxlenratio=maxlenratio, minlenratio=minlenratio)
    if not found:
        return [], -math.inf
    tokens = found[0].yseq[found[0].yseq != end]
    return columns[tokens - 1].tolist(), float(found[0].score)


def _heard(log_probabilities: Tensor, left_out: tuple[int, ...], least: int) -> Tensor:
    """Columns of the tokens that some frame gives a chance, at least the ``least`` best ones."""
    highest = log_probabilities.amax(dim=0)
    highest[list(left_out)] = -math.inf
    number = max(int((highest >= math.log(LEAST_PROBABILITY)).sum()), least)
    number = min(number, len(highest) - len(set(left_out)))
    return highest.topk(number).indices.sort().values
