"""The encoder's faster pass gives ESPnet's own numbers, and steps aside where it can't."""

import copy

import pytest
import torch
from tiny_models import ENCODER, AllSites, encoder

from espnet_prune.decode.int8 import quantise_linear
from espnet_prune.models.conformer import fast_encoder
from espnet_prune.models.conformer.fast_encoder import as_espnet, is_fast, speed_up
from espnet_prune.models.espnet import onednn
from espnet_prune.surgery import cut, inject

TOLERANCE = 1e-5
# Frames: the fewest, one piece of the front-end, and so many that attention takes a head after the
# other, in two pieces.
LENGTHS = (7, 123, 1003)


def kept_by(choose) -> torch.nn.Module:
    """A cut encoder; ``choose(site)`` gives each site's mask (units,)."""
    gated = inject(encoder(), AllSites(learned=False)).eval()
    for name in gated.gate_names():
        gated.gate(name).set(choose(gated.site_map.sites[name]))
    return cut(gated).eval()


def without(*gone: str) -> torch.nn.Module:
    """A cut encoder without these sites, and with the first 5 units or 3 heads of the others."""

    def choose(site):
        mask = torch.ones(site.units)
        mask[3 if site.kind == "head" else 5 :] = 0.0
        return torch.zeros(site.units) if site.name in gone else mask

    return kept_by(choose)


SHAPES = {
    "dense": encoder,
    "fused attention": lambda: encoder(use_sdpa=True),
    "other activation": lambda: encoder(activation_type="hardtanh"),
    "no macaron": lambda: encoder(macaron_style=False),
    "cut": without,
    "no attention": lambda: without("block.0.attention"),
    "no convolution": lambda: without("block.1.convolution"),
    "no feed-forward": lambda: without("block.0.feed_forward", "block.0.macaron"),
    "no block": lambda: without("block.0"),
    "no first channels": lambda: without("front_end.0"),
    "no last channels": lambda: without("front_end.0", "front_end.1"),
    "int8": lambda: quantise_linear(without()),
}


def features(frames: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, frames, 80, generator=generator), torch.tensor([frames])


@torch.no_grad()
def compare(stock: torch.nn.Module, fast: torch.nn.Module, frames: int) -> None:
    """Equal outputs, by values, lengths and their type."""
    expected, expected_lengths, nothing = stock(*features(frames))
    found, lengths, also_nothing = fast(*features(frames))
    assert found.shape == expected.shape and nothing is also_nothing is None
    assert torch.allclose(found, expected, atol=TOLERANCE), (found - expected).abs().max()
    assert lengths.tolist() == expected_lengths.tolist() and lengths.dtype == expected_lengths.dtype


@pytest.fixture
def taken(monkeypatch):
    """Counts the blocks that went the faster way."""
    counted = []
    original = fast_encoder._block
    monkeypatch.setattr(fast_encoder, "_block", lambda *args: counted.append(0) or original(*args))
    return counted


@pytest.mark.parametrize("by_onednn", [True, False], ids=["onednn", "mkl"])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_numbers_are_espnets_at_all_lengths_in_any_order(shape, by_onednn, taken, monkeypatch):
    monkeypatch.setattr(onednn, "is_worth_it", lambda: by_onednn)
    stock = SHAPES[shape]()
    fast = copy.deepcopy(stock)
    assert speed_up(fast) and is_fast(fast) and not is_fast(stock)
    for frames in (*LENGTHS, *LENGTHS[::-1]):
        compare(stock, fast, frames)
    assert len(taken) == 2 * len(LENGTHS) * len(stock.encoders)
    assert list(fast.state_dict()) == list(stock.state_dict())


def test_long_recordings_are_projected_in_parts(monkeypatch, taken):
    monkeypatch.setattr(fast_encoder, "PROJECTED_FRAMES", 40)  # no multiple of a piece
    stock = encoder()
    fast = copy.deepcopy(stock)
    assert speed_up(fast)
    compare(stock, fast, 603)
    assert taken


@pytest.mark.parametrize("times", [2.0, 1.2], ids=["much", "little"])
def test_onednn_multiplies_where_it_is_much_faster(times, monkeypatch):
    """By a clock that each product moves on."""
    now, products = [0.0], []

    def product(seconds):
        def multiply(x, *rest):
            now[0] += seconds
            products.append(seconds)
            return x

        return multiply

    monkeypatch.setattr(onednn.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(onednn.F, "linear", product(times))
    monkeypatch.setattr(onednn, "_multiplied", product(1.0))
    assert onednn.is_worth_it.__wrapped__() == (times == 2.0)
    assert len(products) == 2 * (onednn.TRIALS + 1)


def test_without_onednn_too(monkeypatch, taken):
    stock = encoder()
    fast = copy.deepcopy(stock)
    assert speed_up(fast)
    monkeypatch.setattr(onednn, "ONEDNN", False)
    compare(stock, fast, 603)
    assert taken


def test_changed_weights_are_seen_and_long_tables_are_not_kept(monkeypatch, taken):
    stock = encoder()
    fast = copy.deepcopy(stock)
    assert speed_up(fast)
    compare(stock, fast, 203)
    for model in (stock, fast):
        model.load_state_dict(encoder(seed=1).state_dict())
    compare(stock, fast, 123)
    monkeypatch.setattr(fast_encoder, "LONGEST_KEPT", 100)
    compare(stock, fast, 603)
    kept = [positions.projected.shape[1] for positions in fast.forward.positions.values()]
    assert kept == [2 * 30 - 1, 2 * 30 - 1]  # 123 frames are 30 after subsampling, 603 are 150
    assert len(taken) == 3 * len(fast.encoders)


def test_batches_padding_gradients_training_and_hooks_go_espnets_way(taken):
    stock = encoder()
    fast = copy.deepcopy(stock)
    assert speed_up(fast)
    feats, lengths = features(203)
    with torch.no_grad():
        for inputs in (
            (feats.expand(2, -1, -1), torch.tensor([203, 150])),
            (feats, torch.tensor([150])),
        ):
            assert torch.equal(fast(*inputs)[0], stock(*inputs)[0])
        hidden = fast(feats, lengths, return_all_hs=True)[0][1]
        assert len(hidden) == len(stock.encoders)
    fast(feats, lengths)[0].sum().backward()
    assert fast.encoders[0].feed_forward.w_1.weight.grad is not None
    with torch.no_grad():
        fast.train()(feats, lengths)
        seen = []
        handle = fast.eval().encoders[0].register_forward_hook(lambda *_: seen.append(1))
        fast(feats, lengths)
        assert seen
        handle.remove()
        with as_espnet(fast):
            fast(feats, lengths)
        assert not taken
        fast(feats, lengths)
    assert taken


def test_masks_act_and_a_cut_of_a_faster_encoder_is_faster_too(taken):
    fast = encoder()
    assert speed_up(fast)
    gated = inject(fast, AllSites(learned=False)).eval()
    with torch.no_grad():
        whole = gated(*features(123))[0]
        gated.gate("block.1").set(torch.zeros(1))
        gated.gate("block.0.attention.heads").set(torch.tensor([1.0, 0.0, 0.0, 1.0]))
        masked = gated(*features(123))[0]
        assert not torch.allclose(masked, whole, atol=0.1)
        assert not taken
        small = cut(gated)
        assert torch.allclose(small(*features(123))[0], masked, atol=TOLERANCE)
    assert len(taken) == 1


def test_too_short_is_espnets_error():
    from espnet2.legacy.nets.pytorch_backend.transformer.subsampling import TooShortUttError

    fast = encoder()
    assert speed_up(fast)
    with torch.no_grad(), pytest.raises(TooShortUttError, match="6 frames"):
        fast(*features(6))


@pytest.mark.parametrize(
    "options",
    [
        {"zero_triu": True},
        {"input_layer": "conv2d6"},
        {"use_cnn_module": False},
        {"positionwise_layer_type": "conv1d"},
        {"interctc_layer_idx": [1]},
    ],
    ids=str,
)
def test_an_encoder_of_another_kind_is_left_alone(options):
    built = encoder(**options)
    assert not speed_up(built)
    assert not is_fast(built)


def test_an_encoder_in_training_is_left_alone_and_none_is_sped_up_twice():
    from espnet2.asr.encoder.conformer_encoder import ConformerEncoder

    assert not speed_up(ConformerEncoder(80, **ENCODER).train())
    built = encoder()
    assert speed_up(built)
    assert not speed_up(built)
