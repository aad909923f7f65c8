"""The decoder step without repeated projections gives ESPnet's own numbers."""

from functools import partial

import pytest
import torch

from espnet_prune.budget import resolve
from espnet_prune.models.transformer_decoder.fast_decoder import DECODER, CachedDecoder, speed_up
from espnet_prune.surgery import Plan, cut_to_plan, sites_of

VOCABULARY, SIZE, FRAMES = 20, 16, 30


@pytest.fixture(scope="module", autouse=True)
def registered():
    from espnet_prune.models.espnet.choices import register

    register()


def decoder(**options):
    from espnet2.asr.decoder.transformer_decoder import TransformerDecoder

    torch.manual_seed(0)
    built = TransformerDecoder(
        VOCABULARY, SIZE, attention_heads=4, linear_units=24, num_blocks=3, **options
    )
    with torch.no_grad():  # far from uniform, so that a wrong number shows
        for parameter in built.parameters():
            parameter.mul_(2)
    return built.eval()


def cut_decoder(*gone: str):
    """A third of all units is cut, and the named sites as wholes."""
    built = decoder()
    site_map = sites_of(built)
    masks = {}
    for name, site in site_map.sites.items():
        masks[name] = (torch.arange(site.units) % 3 != 1).float() * float(name not in gone)
    masks = resolve(site_map, masks)
    return cut_to_plan(built, Plan.from_masks(site_map, masks))


def beam_search(scorer, beam: int = 5):
    from espnet2.asr.ctc import CTC
    from espnet2.legacy.nets.batch_beam_search import BatchBeamSearch
    from espnet2.legacy.nets.scorers.ctc import CTCPrefixScorer

    torch.manual_seed(1)
    ctc = CTC(VOCABULARY, SIZE).eval()
    end = VOCABULARY - 1
    return BatchBeamSearch(
        scorers={DECODER: scorer, "ctc": CTCPrefixScorer(ctc, end)},
        weights={DECODER: 0.7, "ctc": 0.3},
        beam_size=beam,
        vocab_size=VOCABULARY,
        sos=end,
        eos=end,
        pre_beam_score_key="full",
    ).eval()


def encoded(seed: int = 2, frames: int = FRAMES) -> torch.Tensor:
    return torch.randn(frames, SIZE, generator=torch.Generator().manual_seed(seed))


BLOCKS = [f"decoder.block.{index}" for index in range(3)]
GONE = {
    "dense": None,
    "units": (),
    "self-attention": (f"{BLOCKS[0]}.attention", f"{BLOCKS[2]}.attention.heads"),
    "cross-attention": (f"{BLOCKS[0]}.cross_attention",),
    "feed-forward": (f"{BLOCKS[1]}.feed_forward",),
    "all self-attention": [f"{block}.attention" for block in BLOCKS],
    "all cross-attention": [f"{block}.cross_attention" for block in BLOCKS],
    "a block": BLOCKS[1:2],
    "all blocks": BLOCKS,
}


@pytest.fixture(params=GONE)
def stock(request):
    """ESPnet's own step: dense, or cut in some way."""
    gone = GONE[request.param]
    return decoder() if gone is None else cut_decoder(*gone)


@torch.no_grad()
def test_every_step_scores_as_espnet_does_also_after_reordering(stock):
    fast = CachedDecoder(stock)
    generator = torch.Generator().manual_seed(3)
    ys = torch.full((4, 1), VOCABULARY - 1)
    theirs, ours = [None] * 4, [None] * 4
    for _ in range(12):
        xs = encoded().expand(len(ys), -1, -1)
        expected, theirs = stock.batch_score(ys, theirs, xs)
        found, ours = fast.batch_score(ys, ours, xs)
        assert torch.allclose(found, expected, atol=1e-5), (found - expected).abs().max()
        order = torch.randint(len(ys), (4,), generator=generator).tolist()
        theirs, ours = ([states[i] for i in order] for states in (theirs, ours))
        tokens = torch.randint(VOCABULARY, (4, 1), generator=generator)
        ys = torch.cat([ys[order], tokens], dim=1)


@torch.no_grad()
def test_a_primer_of_several_tokens():
    stock = decoder()
    ys = torch.tensor([[19, 3, 7], [19, 3, 8]])
    xs = encoded().expand(2, -1, -1)
    expected, _ = stock.batch_score(ys, [None, None], xs)
    found, states = CachedDecoder(stock).batch_score(ys, [None, None], xs)
    assert torch.allclose(found, expected, atol=1e-5)
    assert states[0].shape == (3, 3 * 2 * SIZE)


@torch.no_grad()
@pytest.mark.parametrize("make", [decoder, partial(cut_decoder, *GONE["self-attention"])])
def test_whole_searches_of_several_utterances_find_the_same(make):
    stock, fast = beam_search(make()), beam_search(make())
    assert speed_up(fast)
    lengths = set()
    for seed in range(4):
        x = encoded(seed, 10 + 7 * seed)
        expected, found = stock(x), fast(x)
        assert [h.yseq.tolist() for h in found] == [h.yseq.tolist() for h in expected]
        theirs = torch.tensor([float(h.score) for h in expected])
        assert torch.allclose(torch.tensor([float(h.score) for h in found]), theirs, atol=1e-4)
        lengths.add(len(expected[0].yseq))
    assert max(lengths) > 5


@pytest.mark.parametrize("options", [{"normalize_before": False}, {"concat_after": True}])
def test_a_decoder_of_another_kind_is_left_alone(options):
    built = decoder(**options)
    search = beam_search(built)
    assert not speed_up(search)
    assert search.full_scorers[DECODER] is built
