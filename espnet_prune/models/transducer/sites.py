"""Sites of ESPnet's transducers: the prediction network's hidden units, the joint network's.

A hidden unit of a recurrent layer is cut as ``sites.recurrent`` says; the layer above reads it, or
the joint network's ``lin_dec``. A unit of the joint network is a row of ``lin_enc`` and ``lin_dec``
and a column of ``lin_out``. Embedding and output bias are never gated. The names begin with
``decoder.``; the blocks, a recurrent layer each and then the joint network, count on from the
encoder's.

MACs are those of a search with the T positions and L tokens of an utterance and ``beam_size``
hypotheses: each steps the prediction network once a token, and evaluates the joint network once a
position and once a token, which is the length of a path; ESPnet projects both its inputs at each.
"""

import functools

from torch import nn

from espnet_prune.budget.structure import CostTerm
from espnet_prune.errors import ModelError
from espnet_prune.sites import DECODER, DecoderConfig, Site, SiteMap
from espnet_prune.sites.base import FEED_FORWARD_UNIT, LinearSite
from espnet_prune.sites.recurrent import GoneRecurrent, RecurrentSite
from espnet_prune.sites.unfit import refuse_float16, refuse_tied

LAYER, JOINT = f"{DECODER}prediction.{{}}.units", f"{DECODER}joint.units"


def transducer_sites(
    model: nn.Module,
    config: DecoderConfig,
    reference_seconds: float,
    positions: int,
    first_block: int,
) -> SiteMap:
    """All sites of a model's prediction and joint network, and their costs; see ``DecoderFamily``.

    Raises:
        ModelError: another joint network, float16, or a matrix that is tied to another.
    """
    joint, layers = model.joint_network, model.decoder.decoder
    if type(joint).__name__ != "JointNetwork":
        raise ModelError(f"joint_network: {type(joint).__name__}, expected ESPnet's JointNetwork")
    refuse_float16(model.decoder)
    refuse_float16(joint)
    sites: list[Site] = prediction_sites(model.decoder, joint.lin_dec, first_block)
    if joint.lin_out.in_features:
        sites.append(_joint_site(joint, first_block + len(layers)))
    refuse_tied(model, [site for site in sites if isinstance(site, LinearSite)])
    steps = max(1, round(config.tokens_per_second * reference_seconds)) * config.beam_size
    terms = _prediction_terms(model.decoder, steps)
    terms += _joint_terms(joint, len(layers), steps + positions * config.beam_size)
    own = [layer for layer in layers if not isinstance(layer, GoneRecurrent)]
    return SiteMap({s.name: s for s in sites}, terms, joint, reference_seconds, own)


def prediction_sites(
    decoder: nn.Module, reader: nn.Module | None, first_block: int = 0
) -> list[RecurrentSite]:
    """The recurrent layers' sites, from below; none of a layer that is gone.

    Args:
        decoder: the prediction network.
        reader: the joint network's layer that reads the last one; None where it is still to be
            built.
        first_block: index of the first layer's block.
    """
    layers, sites = decoder.decoder, []
    for index, layer in enumerate(layers):
        if not isinstance(layer, GoneRecurrent):
            above = layers[index + 1] if index + 1 < len(layers) else reader
            replace = functools.partial(layers.__setitem__, index)
            name = LAYER.format(index)
            sites.append(RecurrentSite(name, first_block + index, layer, above, replace))
    return sites


def _joint_site(joint: nn.Module, block: int) -> LinearSite:
    return LinearSite(
        JOINT,
        FEED_FORWARD_UNIT,
        joint.lin_out.in_features,
        block,
        consumer=joint.lin_out,
        projections=[joint.lin_enc, joint.lin_dec],
    )


def _prediction_terms(decoder: nn.Module, steps: int) -> list[CostTerm]:
    """What the prediction network costs in so many steps, the joint network's layers apart."""
    terms = [CostTerm(decoder.embed.weight.numel(), 0, ())]
    for index, layer in enumerate(decoder.decoder):
        if isinstance(layer, GoneRecurrent):
            continue
        name, gates = LAYER.format(index), len(layer.weight_hh_l0) // layer.hidden_size
        below = (LAYER.format(index - 1),) if index else ()
        inputs = 1 if index else layer.input_size
        terms.append(CostTerm(gates * inputs, gates * inputs * steps, (*below, name)))
        terms.append(CostTerm(gates, gates * steps, (name, name)))
        terms.append(CostTerm(2 * gates, 0, (name,)))
    return terms


def _joint_terms(joint: nn.Module, layers: int, evaluations: int) -> list[CostTerm]:
    """What the joint network costs in so many evaluations."""
    terms = [CostTerm(joint.lin_out.out_features, 0, ())]  # its bias
    if not joint.lin_out.in_features:
        return terms
    multiplied = joint.lin_enc.in_features + joint.lin_out.out_features
    biases = 1 + (joint.lin_dec.bias is not None)
    terms.append(CostTerm(multiplied + biases, multiplied * evaluations, (JOINT,)))
    if joint.lin_dec.in_features:
        terms.append(CostTerm(1, evaluations, (LAYER.format(layers - 1), JOINT)))
    return terms
