"""Parts of exported graphs, against ESPnet's own."""

import pytest
import torch
from espnet2.layers.utterance_mvn import UtteranceMVN

from espnet_prune.models.espnet.graphs import UtteranceNorm


@pytest.mark.parametrize("means", [True, False])
@pytest.mark.parametrize("variances", [True, False])
def test_each_recording_s_own_norm_is_espnet_s(means, variances):
    norm = UtteranceMVN(norm_means=means, norm_vars=variances)
    feats = torch.randn(1, 50, 6, generator=torch.Generator().manual_seed(0)) * 3 + 2
    feats[..., 0] = 1.5  # which never varies
    expected, _ = norm(feats.clone(), torch.tensor([50]))
    assert torch.allclose(UtteranceNorm(norm)(feats), expected, atol=1e-5)
