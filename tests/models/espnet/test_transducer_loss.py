"""The transducer's loss: all paths by hand, ESPnet's own, gradients, what stands in for it."""

import itertools
import sys

import pytest
import torch

from espnet_prune.errors import ConfigError
from espnet_prune.models.espnet.transducer_loss import TransducerLoss, transducer_losses
from espnet_prune.models.espnet.warprnnt_stub import ensure_warprnnt


def by_hand(logits: torch.Tensor, target: list[int], blank: int) -> torch.Tensor:
    """Negative log-probability of one text: the sum over all its paths, one by one."""
    log_probs = logits.log_softmax(dim=-1)
    frames, paths = len(logits), []
    for places in itertools.combinations_with_replacement(range(frames), len(target)):
        spoken = [log_probs[t, u, target[u]] for u, t in enumerate(places)]
        silent = [log_probs[t, sum(place <= t for place in places), blank] for t in range(frames)]
        paths.append(sum(spoken) + sum(silent))
    return -torch.stack(paths).logsumexp(dim=0)


@pytest.fixture
def batch() -> tuple[torch.Tensor, ...]:
    """Logits (4, 5, 4, 6) with ids (4, 3), frames and tokens, of different lengths."""
    generator = torch.Generator().manual_seed(1)
    logits = 2 * torch.randn(4, 5, 4, 6, generator=generator, dtype=torch.float64)
    targets = torch.randint(1, 6, (4, 3), generator=generator)
    return logits, targets, torch.tensor([5, 4, 1, 3]), torch.tensor([3, 1, 2, 0])


@pytest.mark.parametrize("blank", [0, 5])
def test_equals_the_sum_over_all_paths_with_its_gradient(batch, blank):
    logits, targets, frames, tokens = batch
    logits, targets = logits.requires_grad_(), targets - int(blank == 5)
    found = transducer_losses(logits, targets, frames, tokens, blank)
    expected = torch.stack(
        [
            by_hand(one[:t, : u + 1], text[:u].tolist(), blank)
            for one, text, t, u in zip(logits, targets, frames, tokens, strict=True)
        ]
    )
    assert torch.allclose(found, expected)
    gradients = [torch.autograd.grad(value.sum(), logits)[0] for value in (found, expected)]
    assert torch.allclose(*gradients) and gradients[0].abs().sum() > 1
    assert not gradients[0][2, 1:].any(), "frames behind the end have no gradient"


def test_equals_espnets_slow_reference(batch):
    pytest.importorskip("numba")
    from espnet2.asr.transducer.rnnt_multi_blank.rnnt_multi_blank import RNNTLossNumba

    logits, targets, frames, tokens = batch
    ours, theirs = (logits.float().clone().requires_grad_() for _ in range(2))
    numbers = (targets.int(), frames.int(), tokens.int())
    found, expected = TransducerLoss()(ours, *numbers), RNNTLossNumba()(theirs, *numbers)
    assert float(found) == pytest.approx(float(expected), rel=1e-5)
    found.backward()
    expected.sum().backward()
    assert torch.allclose(ours.grad, theirs.grad, atol=1e-5)


def test_long_recordings_stay_finite():
    logits = torch.randn(1, 300, 40, 5).requires_grad_()
    loss = TransducerLoss()(
        logits, torch.ones(1, 39).int(), torch.tensor([300]), torch.tensor([39])
    )
    loss.backward()
    assert loss.isfinite() and logits.grad.isfinite().all()


def test_reductions_and_what_is_not_known(batch):
    each = TransducerLoss(reduction="none")(*batch)
    assert TransducerLoss(reduction="sum")(*batch) == each.sum()
    assert TransducerLoss()(*batch) == each.mean()
    with pytest.raises(ConfigError, match="fastemit_lambda"):
        TransducerLoss(fastemit_lambda=0.1)
    with pytest.raises(ConfigError, match="reduction"):
        TransducerLoss(reduction="max")


def test_an_installed_package_is_used(monkeypatch, tmp_path):
    (tmp_path / "warprnnt_pytorch.py").write_text("RNNTLoss = 'theirs'\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "warprnnt_pytorch", raising=False)
    ensure_warprnnt()
    import warprnnt_pytorch

    assert warprnnt_pytorch.RNNTLoss == "theirs"
    monkeypatch.delitem(sys.modules, "warprnnt_pytorch")


def test_it_stands_in_where_none_is_installed(monkeypatch):
    monkeypatch.delitem(sys.modules, "warprnnt_pytorch", raising=False)
    ensure_warprnnt()
    from warprnnt_pytorch import RNNTLoss

    assert RNNTLoss is TransducerLoss
