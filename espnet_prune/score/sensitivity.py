"""How much worse a model gets when one site, or the lesser part of its units, is removed.

Removed is by masks, which do what a cut would do: a branch goes with the last of its units, and
channels go with those that alone read them. Of a part, the units of smallest magnitude go. The
loss is that of the labels, as in training; WER is that of greedy CTC, or of a Whisper's own greedy
search, its texts normalised by its authors' rules. Nothing is finetuned.
Each site's result is a file of its own, written at once, so that any number of processes or
machines share the work, and what was killed goes on.
"""

import functools
from collections.abc import Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from espnet_prune.budget import BLOCK, COUNTED, Budget, resolve
from espnet_prune.config import check_choice, check_range
from espnet_prune.data.kaldi_dir import read_data
from espnet_prune.data.parallel import WHOLE, Share, parallel_map
from espnet_prune.data.resume import fingerprint
from espnet_prune.errors import ConfigError, EnvironmentProblem
from espnet_prune.io_atomic import read_json, write_json
from espnet_prune.models.espnet.folder import model_files
from espnet_prune.out_path import check_out_folder
from espnet_prune.record import BEGUN, check_same, file_digest, mark_begun
from espnet_prune.score.probe import Probe, Utterance
from espnet_prune.score.wer import count_errors
from espnet_prune.sites import KINDS, UNIT_KINDS, DecoderConfig, Site

SCHEMA = 1
RESULT = "sensitivity.json"
PARTS = "sites"
DENSE = "dense"  # the model without any mask


@dataclass(frozen=True)
class SensitivityConfig:
    """What is measured.

    Attributes:
        utterances: number of utterances of the data, evenly spread over its list; all where there
            are fewer.
        fractions: shares of a site's units, 0 < fraction <= 1; a block has one unit.
        kinds: kinds of sites. A branch is gone with its units, so it needs none of its own.
        decoder: given, the attention decoder's sites are measured too; greedy CTC can't feel them,
            the loss does.
    """

    utterances: int = 100
    fractions: tuple[float, ...] = (0.25, 0.5, 1.0)
    kinds: tuple[str, ...] = (*UNIT_KINDS, BLOCK)
    decoder: DecoderConfig | None = None

    def __post_init__(self) -> None:
        check_range("utterances", self.utterances, 1, 1e9)
        for fraction in self.fractions:
            check_range("fractions", fraction, 1e-6, 1)
        for kind in self.kinds:
            check_choice("sites", kind, KINDS)
        if not self.fractions or not self.kinds:
            raise ConfigError("fractions, sites: at least one of each was expected")


@dataclass(frozen=True)
class _Task:
    """One site to measure, or the dense model."""

    model: Path
    digest: str
    data: Path
    config: SensitivityConfig
    item: str
    target: Path


def sensitivity(
    model: Path,
    data: Path,
    config: SensitivityConfig,
    out: Path,
    jobs: int = 1,
    share: Share | None = None,
) -> dict | None:
    """Measures all sites that have no result yet.

    Args:
        model: a model's folder, with ``espnet`` in it.
        data: a dump folder, usually of the development set.
        config: what is measured.
        out: gets ``sites/<site>.json`` and, of all together, ``sensitivity.json``.
        jobs: number of processes of one thread each.
        share: this share of the sites alone, each of which may run elsewhere; afterwards the same
            without it puts all together.

    Returns:
        What ``sensitivity.json`` holds; None for a share.

    Raises:
        ConfigError: ``out`` is a file, or was begun with another model, data or config. DataError:
        an utterance can't be used; names it. EnvironmentProblem: a process died. ModelError: a
        model with neither CTC nor a greedy search, or one that can't be loaded or pruned.
    """
    check_out_folder(out)
    digest = file_digest(model_files(model)[1])
    made_by = {"model": digest, "data": fingerprint(data), **asdict(config)}
    check_same(out, made_by, BEGUN)
    items = [DENSE, *_probe(model, digest, data, config).sites]  # which may refuse the model
    mark_begun(out, made_by)
    files = {item: out / PARTS / f"{item}.json" for item in items}
    tasks = [
        _Task(model, digest, data, config, item, files[item])
        for item in (share or WHOLE).of(items)
        if not files[item].exists()
    ]
    try:
        parallel_map(_measure, tasks, jobs, "sensitivity", fresh_processes=True)
    except BrokenProcessPool as error:
        raise EnvironmentProblem(
            f"{out}: a process was killed, perhaps for want of memory; give the same command "
            "again with fewer --nj"
        ) from error
    if share is not None:
        return None
    result = _joined({item: read_json(path) for item, path in files.items()}, made_by)
    write_json(out / RESULT, result)
    return result


@functools.lru_cache(maxsize=1)
def _probe(model: Path, digest: str, data: Path, config: SensitivityConfig) -> Probe:
    """Loaded once a process; ``digest`` tells a model from an earlier one in the same folder."""
    return Probe(model, chosen_utterances(data, config.utterances), config.kinds, config.decoder)


def _measure(task: _Task) -> None:
    """Measures one site in this process and writes its result."""
    torch.set_num_threads(1)
    probe = _probe(task.model, task.digest, task.data, task.config)
    if task.item == DENSE:
        write_json(task.target, _scores(probe, {}))
    else:
        write_json(task.target, _site_result(probe, task.item, task.config.fractions))


def _site_result(probe: Probe, name: str, fractions: Sequence[float]) -> dict:
    """Size and scores for each number of removed units."""
    site, everything = probe.sites[name], probe.site_map
    budgets = {measure: Budget(everything, list(everything.sites), measure) for measure in COUNTED}
    magnitudes, removals = None, []
    if site.units > 1:
        magnitudes = float(site.magnitudes().mean())
    for number in sorted({max(1, round(fraction * site.units)) for fraction in fractions}):
        masks = resolve(everything, {name: mask_without(site, number)})
        saved = {measure: b.prunable - b.hard(masks) for measure, b in budgets.items()}
        removals.append({"removed": number, **saved, **_scores(probe, masks)})
    return {
        "kind": site.kind,
        "block": site.block,
        "units": site.units,
        "mean_magnitude": magnitudes,  # tells whether a result is of this model
        "removals": removals,
    }


def mask_without(site: Site, number: int) -> Tensor:
    """A site's mask (units,) without its ``number`` units of smallest magnitude."""
    mask = torch.ones(site.units)
    if site.units > 1:
        mask[torch.argsort(site.magnitudes().cpu(), stable=True)[:number]] = 0.0
    else:
        mask[:] = 0.0
    return mask


def _scores(probe: Probe, masks: Mapping[str, Tensor]) -> dict:
    loss, texts = probe.measure(masks)
    texts = {name: probe.comparable(text) for name, text in texts.items()}
    reference = {u.name: probe.comparable(u.text) for u in probe.utterances}
    counts, _ = count_errors(reference, texts, "alignment")  # the same wherever a part runs
    errors, words = (sum(getattr(c, key) for c in counts) for key in ("errors", "words"))
    return {"loss": loss, "errors": errors, "words": words}


def chosen_utterances(folder: Path, number: int) -> list[Utterance]:
    """``number`` utterances of a dump folder, evenly spread over its list."""
    data = read_data(folder)
    names = list(data.recordings)
    number = min(number, len(names))
    chosen = [names[index * len(names) // number] for index in range(number)]
    return [Utterance(folder, name, data.recordings[name], data.texts[name]) for name in chosen]


def _joined(results: Mapping[str, dict], made_by: Mapping) -> dict:
    """The results with their differences from the dense model."""
    dense = results[DENSE]
    sites = {}
    for name, site in results.items():
        if name != DENSE:
            removals = [{**r, **_changes(r, dense)} for r in site["removals"]]
            sites[name] = {**site, "removals": removals}
    wer = 100 * dense["errors"] / max(1, dense["words"])
    return {"schema": SCHEMA, "made_by": made_by, "dense": {**dense, "wer": wer}, "sites": sites}


def _changes(removal: Mapping, dense: Mapping) -> dict[str, float]:
    return {
        "loss_change": removal["loss"] - dense["loss"],
        "wer_change": 100 * (removal["errors"] - dense["errors"]) / max(1, dense["words"]),
    }


def worst_first(result: Mapping) -> list[tuple[str, Mapping]]:
    """Sites and their largest removal, the one that costs most loss first."""
    largest: Sequence = [(n, s["removals"][-1]) for n, s in result["sites"].items()]
    return sorted(largest, key=lambda pair: -pair[1]["loss_change"])
