"""Layer dropping on a small Conformer: which blocks go, and what is left of the next one."""

import pytest
import torch
from tiny_models import encoder, features, passes_of

from espnet_prune.errors import ConfigError, ModelError, TrainingError
from espnet_prune.methods import make_method
from espnet_prune.methods.layer_drop import loss_without, sparsity_without
from espnet_prune.surgery import cut, inject, plan_of
from espnet_prune.surgery.holding import holding

DEEP = {"output_size": 32, "linear_units": 96, "num_blocks": 6}
IN_BLOCKS = ["head", "feed_forward_unit", "convolution_channel", "branch"]


def method_of(target: float = 0.5, order: str = "spaced", **options):
    options = {"sites": IN_BLOCKS, "layer_drop": {"order": order}, **options}
    return make_method("layer_drop", options, target=target)


def dropped(gated, masks) -> list[int]:
    blocks = gated.site_map.of_kinds(("block",))
    return [site.block for site in blocks if not masks[site.name].any()]


def test_evenly_spaced_blocks_go_and_both_ends_stay_longest():
    sequence = []
    for number in range(1, 6):
        method = method_of(number / 6 + 0.001)
        gated = inject(encoder(**DEEP), method).eval()
        sequence.append(dropped(gated, method.masks(gated)))
    assert sequence == [[2], [2, 4], [1, 2, 4], [1, 2, 3, 4], [0, 1, 2, 3, 4]]


def test_one_more_block_is_thinned_to_the_target_and_no_other():
    method = method_of(0.42)
    gated = inject(encoder(**DEEP), method).eval()
    masks = method.masks(gated)
    assert dropped(gated, masks) == [2, 4]
    reached = float(gated.budget.sparsity(gated.budget.hard(masks)))
    assert reached == pytest.approx(0.42, abs=method.config.budget.tolerance)
    cut_sites = {
        gated.site_map.sites[name].block for name, mask in masks.items() if (mask == 0).any()
    }
    assert cut_sites == {1, 2, 4}
    small = cut(gated, masks)
    with torch.no_grad(), holding(gated, masks):
        difference = (gated(*features())[0] - small(*features())[0]).abs().max()
    assert float(difference) < 5e-6
    assert len(small.encoders) == 4
    assert plan_of(small).kept_blocks() == [0, 1, 3, 5]


def idle(model: torch.nn.Module, block: int) -> None:
    """Makes a block do nothing but its last norm, whose input it hands on."""
    layer = model.encoders[block]
    with torch.no_grad():
        for last in (
            layer.feed_forward.w_2,
            layer.feed_forward_macaron.w_2,
            layer.self_attn.linear_out,
            layer.conv_module.pointwise_conv2,
        ):
            last.weight.zero_()
            last.bias.zero_()


def test_by_the_loss_a_block_that_does_nothing_goes_first():
    model = encoder(**DEEP)
    for block in (1, 3):  # after a norm, a second norm of the same kind changes nothing
        idle(model, block)
        for index in (block - 1, block):
            torch.nn.init.ones_(model.encoders[index].norm_final.weight)
            torch.nn.init.zeros_(model.encoders[index].norm_final.bias)
    method = method_of(0.34, "loss")
    gated = inject(model, method).eval()
    passes = passes_of(gated, 2)
    dense = loss_without(gated, [], passes)
    assert loss_without(gated, ["block.1", "block.3"], passes) == pytest.approx(dense, rel=1e-4)
    # a loss that grows with the distance from the dense output
    with torch.no_grad():
        target = gated(*features())[0]
    distance = [lambda: (gated(*features())[0] - target).square().mean()]
    assert dropped(gated, method.masks(gated, distance)) == [1, 3]


def test_the_size_is_counted_as_by_the_other_methods_but_for_the_blocks_norms():
    ours = inject(encoder(**DEEP), method_of())
    others = inject(encoder(**DEEP), make_method("magnitude", config=method_of().config))
    norms = DEEP["num_blocks"] * 2 * DEEP["output_size"]
    assert ours.budget.prunable == others.budget.prunable + norms
    assert sparsity_without(ours, [f"block.{b}" for b in range(6)]) == 1.0


def test_where_all_blocks_are_too_little_the_front_end_is_thinned_too():
    options = {"sites": [*IN_BLOCKS, "front_end_channel"]}
    shallow = {"output_size": 16, "linear_units": 24, "num_blocks": 1}
    method = method_of(0.9, **options)
    gated = inject(encoder(**shallow), method).eval()
    masks = method.masks(gated)
    assert dropped(gated, masks) == [0]
    reached = float(gated.budget.sparsity(gated.budget.hard(masks)))
    assert reached == pytest.approx(0.9, abs=method.config.budget.tolerance * 4)


def test_only_the_loss_needs_data():
    assert method_of(order="spaced").calibration_utterances == 0
    by_loss = method_of(order="loss", calibration={"utterances": 3})
    assert by_loss.calibration_utterances == 3
    with pytest.raises(ConfigError, match="calibration data"):
        by_loss.masks(inject(encoder(), by_loss).eval())


@pytest.mark.parametrize("loss", ["nan", "inf"])
def test_a_loss_that_is_no_number_is_an_error(loss):
    method = method_of(0.5, "loss")
    gated = inject(encoder(), method).eval()
    passes = [*passes_of(gated, 1), lambda: torch.tensor(float(loss))]
    with pytest.raises(TrainingError, match=rf"without block\.0 the calibration loss is {loss}"):
        method.masks(gated, passes)


def test_blocks_alone_leave_nothing_to_thin():
    with pytest.raises(ConfigError, match=r"sites: \['block'\]: LayerDrop chooses among units"):
        method_of(sites=["block"])


def test_a_model_without_blocks_to_drop_is_refused():
    method = method_of()
    gated = inject(encoder(), make_method("magnitude")).eval()
    gated.site_map.sites = {n: s for n, s in gated.site_map.sites.items() if s.kind != "block"}
    with pytest.raises(ModelError, match="no blocks"):
        method.masks(gated)


def test_an_unknown_order_is_named():
    with pytest.raises(ConfigError, match="did you mean 'spaced'"):
        method_of(order="space")
