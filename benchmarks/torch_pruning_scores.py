"""Torch-Pruning beside the methods here: what it can cut of a Conformer, and its scores as a file.

Each kind of unit is cut by Torch-Pruning in a fresh copy of the model's first block, and the model
is run; what it can't cut is printed with its reason, and kept beside the scores in a JSON file. The
importance (group magnitude, its default normalisation) of the units that it can cut goes to a file
for the method `importance`, which makes a row of the same table with the same updates; sparsity
can't go beyond what these units hold.

    pip install --no-deps torch-pruning==1.6.1    # utils/run_tests.sh installs it, too
    # in a recipe's folder:
    python ../../../benchmarks/torch_pruning_scores.py --model exp/base/teacher/model --out exp/base/tp.safetensors
    # systems.yaml: tp_50: {method: importance, target: 0.5, options: {importance: {file: exp/base/tp.safetensors}}}
"""  # noqa: E501

import argparse
import sys
import warnings
from collections.abc import Collection, Sequence
from pathlib import Path

SECONDS = 4.0  # of the input that is traced
# By kind of unit: the module of block {0} whose outputs are the units, and the site's name.
KINDS = {
    "macaron_unit": ("encoders.{0}.feed_forward_macaron.w_1", "block.{0}.macaron.units"),
    "feed_forward_unit": ("encoders.{0}.feed_forward.w_1", "block.{0}.feed_forward.units"),
    "convolution_channel": ("encoders.{0}.conv_module.pointwise_conv1", None),
    "head": ("encoders.{0}.self_attn.linear_v", None),
}


def get_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", type=Path, required=True, help="folder of the uncut model")
    parser.add_argument("--out", type=Path, required=True, help="the .safetensors to make")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Tries each kind, prints what happens, writes the scores."""
    from safetensors.torch import save_file

    import espnet_prune
    from espnet_prune.io_atomic import atomic_path, write_json
    from espnet_prune.models.espnet.features import random_input

    args = get_parser().parse_args(argv)

    example = random_input(espnet_prune.load(args.model), SECONDS)

    def fresh():
        return espnet_prune.load(args.model).encoder.eval()

    scores, kinds = {}, {}
    for kind, (module, site) in KINDS.items():
        problem = failure(fresh(), module.format(0), example)
        kinds[kind] = problem or "cut, and the model runs"
        print(f"{kind}: {kinds[kind]}")
        if problem is None and site:
            for block in range(len(fresh().encoders)):
                scores[site.format(block)] = importance(fresh(), module.format(block), example)
    with atomic_path(args.out) as temporary:
        save_file(scores, temporary)
    units, share = sum(map(len, scores.values())), share_of_prunable(fresh(), scores)
    record = {"kinds": kinds, "sites": len(scores), "units": units, "share_of_prunable": share}
    write_json(args.out.with_suffix(".json"), record)
    print(
        f"{args.out}: scores of {units} units, {len(scores)} sites, which hold {100 * share:.1f}% "
        "of the prunable parameters"
    )
    return 0


def share_of_prunable(encoder, names: Collection[str]) -> float:
    """What share of the parameters that all sites of units hold the named ones have."""
    from espnet_prune.budget import Budget
    from espnet_prune.sites import UNIT_KINDS
    from espnet_prune.surgery import sites_of

    found = sites_of(encoder, SECONDS)
    units = [site.name for site in found.of_kinds(UNIT_KINDS)]
    named = [name for name in units if name in names]
    return Budget(found, named, "parameters").prunable / Budget(found, units, "parameters").prunable


def failure(encoder, name: str, example: tuple) -> str | None:
    """What goes wrong when a quarter of a module's outputs is removed; None where nothing."""
    module = encoder.get_submodule(name)
    outputs = module.weight.shape[0]
    try:
        _group(encoder, module, range(outputs // 4), example).prune()
        encoder(*example)
    except Exception as error:  # noqa: BLE001  (whatever it is, it is the result)
        return f"{type(error).__name__}: {error}".splitlines()[0]
    if module.weight.shape[0] == outputs:
        return "nothing was cut"
    return None


def importance(encoder, name: str, example: tuple):
    """Torch-Pruning's group magnitude of a module's outputs, (units,)."""
    import torch_pruning

    module = encoder.get_submodule(name)
    group = _group(encoder, module, range(module.weight.shape[0]), example)
    return torch_pruning.importance.GroupMagnitudeImportance()(group).contiguous().cpu()


def _group(encoder, module, outputs: Sequence[int], example: tuple):
    import torch
    import torch_pruning

    convolution = isinstance(module, torch.nn.Conv1d)
    prune = getattr(torch_pruning, f"prune_{'conv' if convolution else 'linear'}_out_channels")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph = torch_pruning.DependencyGraph().build_dependency(
            encoder, example_inputs=example, output_transform=lambda output: output[0]
        )
        return graph.get_pruning_group(module, prune, idxs=list(outputs))


if __name__ == "__main__":
    sys.exit(main())
