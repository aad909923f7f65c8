"""Kept outputs of a teacher: what was written is read, by utterance, padded, rounded to float16."""

import pytest
import torch

from espnet_prune.distill import DistillConfig
from espnet_prune.errors import DataError
from espnet_prune.methods import MethodConfig
from espnet_prune.train.keep_outputs import keep_outputs
from espnet_prune.train.model_outputs import Outputs
from espnet_prune.train.system_config import Folders, StageConfig, SystemConfig
from espnet_prune.train.teacher_outputs import INDEX, KeptOutputs, by_name, is_kept, keep

LENGTHS = {"a": (4, 2), "b": (3, 5), "c/d": (6, 1)}  # frames and tokens


def drawn(name: str, kind: int, rows: int, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(100 * kind + ord(name[0]))
    return torch.randn(rows, width, generator=generator)


def outputs() -> list[tuple[str, dict[str, torch.Tensor]]]:
    made = []
    for name, (frames, tokens) in LENGTHS.items():
        hidden = [drawn(name, kind, frames, 3)[None] for kind in range(4)]
        logits, decoded = drawn(name, 8, frames, 7)[None], drawn(name, 9, tokens, 5)[None]
        whole = Outputs(hidden[-1], None, hidden, logits, decoded, None)
        made.append((name, by_name(whole, (1, 3))))
    return made


def test_a_batch_is_what_was_kept_padded_by_zeros(tmp_path):
    keep(outputs(), len(LENGTHS), tmp_path / "train")
    batch = KeptOutputs([tmp_path / "train"]).batch(["c/d", "a"])
    assert sorted(batch.hidden) == [1, 3]
    assert batch.hidden[1].shape == (2, 6, 3) and batch.decoded.shape == (2, 2, 5)
    for row, name in enumerate(("c/d", "a")):
        frames, tokens = LENGTHS[name]
        pairs = (
            (batch.hidden[3], drawn(name, 3, frames, 3)),
            (batch.ctc_logits, drawn(name, 8, frames, 7)),
            (batch.decoded, drawn(name, 9, tokens, 5)),
        )
        for found, written in pairs:
            assert torch.equal(found[row, : len(written)], written.half().float())
            assert not found[row, len(written) :].any()


def test_nothing_counts_as_kept_before_its_index_is_written(tmp_path):
    def broken():
        yield from outputs()[:2]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        keep(broken(), 3, tmp_path / "train")
    assert not is_kept(tmp_path / "train")
    keep(outputs(), 3, tmp_path / "train")  # begins anew, and nothing of before is left
    assert is_kept(tmp_path / "train")
    assert (tmp_path / "train" / "ctc").stat().st_size == 2 * 7 * sum(
        f for f, _ in LENGTHS.values()
    )


def test_an_utterance_that_is_not_there_or_twice_is_named(tmp_path):
    for name in ("train", "dev"):
        keep(outputs(), 3, tmp_path / name)
    with pytest.raises(DataError, match="'x'.*outputs"):
        KeptOutputs([tmp_path / "train"]).batch(["x"])
    with pytest.raises(DataError, match="'a' is in the training and in the development set"):
        KeptOutputs([tmp_path / "train", tmp_path / "dev"])
    (tmp_path / "dev" / INDEX).unlink()
    with pytest.raises(DataError, match=INDEX):
        KeptOutputs([tmp_path / "dev"])


def test_without_statistics_nothing_is_computed_for_hours_first(tmp_path):
    folders = Folders(*(tmp_path / name for name in ("train", "valid", "tokens", "stats")))
    config = SystemConfig("unpruned", 0.0, 0, tmp_path / "teacher", folders)
    wanted = DistillConfig(keep_teacher_outputs=True)
    with pytest.raises(DataError, match=r"stats/train/speech_shape: .*stage 5"):
        keep_outputs(config, StageConfig({}, MethodConfig()), wanted, ngpu=0)
    assert not (tmp_path / "teacher").exists()
