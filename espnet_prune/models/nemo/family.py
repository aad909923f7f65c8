"""NeMo's Conformer: ESPnet's blocks behind a padded front-end, and no norm after the last."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import nn

from espnet_prune.models.conformer.family import Conformer
from espnet_prune.models.family import Support
from espnet_prune.models.nemo.archive import HUB_OWNER, SUFFIX, is_nemo, opened
from espnet_prune.models.origins import Origin


class Nemo(Conformer):
    """``encoder: nemo_conformer`` with ``frontend: nemo``."""

    name = "nemo"
    title = "NeMo's Conformer-CTC"
    classes = ("NemoConformerEncoder",)
    choices = ("nemo_conformer",)
    stock_choice = "nemo_conformer"
    known = {}  # its own class takes nothing else
    origins = f"a {SUFFIX} archive, and {HUB_OWNER}NAME on the hub (a Conformer with CTC)"
    support = Support(
        "NeMo's Conformer-CTC (`striding` front-end; `encoder: nemo_conformer`)",
        (*Conformer.support.cells[:3], "yes", *Conformer.support.cells[4:]),
    )

    def stock_class(self) -> type:
        from espnet_prune.models.nemo.encoder import NemoConformerEncoder

        return NemoConformerEncoder

    @property
    def cut_class(self) -> type:
        """The same: it takes a plan itself."""
        return self.stock_class()

    def espnet_classes(self) -> Mapping[str, Mapping[str, type]]:
        from espnet_prune.models.nemo.features import NemoFrontend

        return {**super().espnet_classes(), "frontend": {"nemo": NemoFrontend}}

    def is_origin(self, source: str) -> bool:
        return is_nemo(source)

    @contextmanager
    def open_origin(self, source: str) -> Iterator[Origin]:
        from espnet_prune.models.nemo.teacher import NemoTeacher

        with opened(source) as archive:
            yield NemoTeacher(archive)

    def options(self, encoder: nn.Module) -> dict:
        from espnet_prune.models.nemo.encoder import FIXED

        options = {key: v for key, v in super().options(encoder).items() if key not in FIXED}
        return {**options, "subsampling_channels": encoder.embed.conv[2].out_channels}

    def features_graph(self, frontend: nn.Module) -> nn.Module:
        from espnet_prune.models.nemo.graphs import NemoFilterBank

        return NemoFilterBank(frontend)


FAMILY = Nemo()
