"""Numerical pruning: Newton's mask and the compensating weights against other ways to them."""

import pytest
import torch
from tiny_models import encoder, features, passes_of

from espnet_prune.errors import ConfigError, ModelError
from espnet_prune.methods import make_method
from espnet_prune.methods.numerical import newton_mask
from espnet_prune.surgery import cut, inject
from espnet_prune.surgery.compensate import compensate
from espnet_prune.surgery.holding import holding
from espnet_prune.surgery.inputs import columns_of, inputs_of, weight_of
from espnet_prune.surgery.sparse import check_zeros, mark_sparse, zeros_of

UNITS = "block.0.feed_forward.units"


def problem(columns: int = 6):
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(20, columns, generator=generator).double()
    return rows, torch.randn(columns, 3, generator=generator).double()


def test_the_mask_is_where_the_objectives_gradient_is_0():
    rows, weight = problem()
    penalty, damping, share = 2.0, 0.05, 0.5
    z = newton_mask(weight, rows.T @ rows, share, penalty, damping).requires_grad_()
    scale = ((weight @ weight.T) * (rows.T @ rows)).diagonal().mean()
    error = (rows @ weight - rows @ (z[:, None] * weight)).square().sum()
    whole = error / scale + damping * (1 - z).square().sum()
    whole = (whole + penalty * (z.sum() - share * len(z)).square()) / 2
    assert torch.autograd.grad(whole, z)[0].abs().max() < 1e-10


def test_a_column_that_gives_nothing_has_the_lowest_mask():
    rows, weight = problem()
    rows[:, 2] *= 1e-3
    z = newton_mask(weight, rows.T @ rows, 0.5, 1.0, 0.01)
    assert int(z.argmin()) == 2 and float(z[2]) < float(z.sort().values[1]) - 0.1


def gated_of(model=None):
    return inject(model or encoder(), make_method("numerical")).eval()


@pytest.mark.parametrize(
    "name", [UNITS, "block.1.convolution.channels", "block.0.attention.heads", "front_end.0",
             "front_end.1"]
)  # fmt: skip
def test_rows_times_weight_are_the_consumers_output(name):
    gated = gated_of()
    site = gated.site_map.sites[name]
    outputs = []
    handle = site.consumer.register_forward_hook(  # a copy: the activation works in place
        lambda layer, x, y: outputs.append(y.detach().clone())
    )
    run = passes_of(gated, 1)[0]
    rows = inputs_of(gated, [site], {}, run)[0]
    handle.remove()
    output = outputs[0]
    if output.dim() == 4 or name.endswith("channels"):
        output = output.movedim(1, -1)
    expected = output.reshape(-1, output.shape[-1]) - site.consumer.bias
    assert torch.allclose((rows.double() @ weight_of(site)).float(), expected, atol=1e-5)
    units = torch.tensor([0, site.units - 1])
    own = columns_of(site, units)
    assert len(own) * site.units == 2 * rows.shape[1]


def test_compensating_weights_are_least_squares_on_what_is_left():
    gated = gated_of()
    site, passes = gated.site_map.sites[UNITS], passes_of(gated, 3)
    rows = torch.cat([inputs_of(gated, [site], {}, run)[0] for run in passes]).double()
    mask = torch.ones(site.units)
    mask[::3] = 0.0
    kept = mask.nonzero()[:, 0]
    target = rows @ weight_of(site)
    compensate(gated, [site], {UNITS: mask}, passes, damping=1e-9)
    expected = torch.linalg.lstsq(rows[:, kept], target).solution
    found = weight_of(site)[kept]
    best, error = (
        (rows[:, kept] @ expected - target).norm(),
        (rows[:, kept] @ found - target).norm(),
    )
    assert float(error) == pytest.approx(float(best), rel=1e-3)
    stock = encoder().state_dict()
    changed = {k for k, v in gated.model.state_dict().items() if not torch.equal(v, stock[k])}
    assert changed == {"encoders.0.feed_forward.w_2.weight"}


def test_the_model_is_nearer_to_the_dense_one_with_them():
    method = make_method("numerical", target=0.4)
    gated = inject(encoder(output_size=32, linear_units=96), method).eval()
    passes = passes_of(gated, 6)
    masks = method.masks(gated, passes)
    with torch.no_grad():
        dense = gated.model(*features())[0]

    def distance() -> float:
        with torch.no_grad(), holding(gated, masks):
            return float((gated(*features())[0] - dense).square().mean())

    before = distance()
    method.compensate(gated, masks, passes)
    assert distance() < before
    small = cut(gated, masks)
    with torch.no_grad(), holding(gated, masks):
        assert (gated(*features())[0] - small(*features())[0]).abs().max() < 1e-5


def test_on_a_model_of_few_single_weights_what_it_brings_back_is_named():
    method = make_method("numerical", target=0.4)
    gated = inject(encoder(), method).eval()
    weight = gated.model.encoders[0].feed_forward.w_2.weight
    weight.data[::2, ::2] = weight.data[1::2, 1::2] = 0.0
    mark_sparse(gated.model, [weight])
    zeros, passes = zeros_of(gated.model), passes_of(gated, 4)
    masks = method.masks(gated, passes)
    check_zeros(gated.model, zeros, "method: numerical")
    method.compensate(gated, masks, passes)
    with pytest.raises(ModelError, match="feed_forward.w_2.weight: .* method: numerical brings"):
        check_zeros(gated.model, zeros, "method: numerical")


def test_it_can_be_left_out():
    method = make_method("numerical", {"newton": {"compensate": False}})
    gated = gated_of()
    method.compensate(gated, method.masks(gated, passes_of(gated, 2)), passes_of(gated, 2))
    assert all(torch.equal(v, encoder().state_dict()[k])
               for k, v in gated.model.state_dict().items())  # fmt: skip
    with pytest.raises(ConfigError, match="newton: damping"):
        make_method("numerical", {"newton": {"damping": 0}})
