"""The model card of a hub folder, filled from what an experiment's stages recorded.

What they did not record is left out. The YAML at the top is that of Hugging Face's hub
(https://huggingface.co/docs/hub/model-cards): license, language, tags, datasets, metrics and, as
``model-index``, the word error rates.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from espnet_prune.config import dump_yaml
from espnet_prune.models import family_called
from espnet_prune.report.collect import prunes_single_weights
from espnet_prune.report.tables import made
from espnet_prune.report.text_table import in_bytes

TASK = "automatic-speech-recognition"
TAGS = ("espnet", "speech", "pruning", "structured-pruning")
PARTS = {"prunable": "prunable", "encoder": "encoder", "decoder": "decoder", "total": "whole model"}
ZEROS = (
    "Parameters that are not kept are zeros in tensors of the same shape: a smaller file, not a "
    "faster model."
)


@dataclass(frozen=True)
class CardOptions:
    """What no stage knows; what isn't given is left out.

    Attributes:
        name: name of the model; None for the system's.
        license: as the hub abbreviates it, such as ``apache-2.0``.
        languages: by their codes, such as ``en``.
        dataset: its name on the hub.
        corpus: its name in words; None for that of the experiment's report.
    """

    name: str | None = None
    license: str | None = None
    languages: tuple[str, ...] = ()
    dataset: str | None = None
    corpus: str | None = None


def model_card(
    entry: Mapping,
    dense: Mapping | None,
    encoder: str,
    options: CardOptions,
    pictures: Sequence[str],
) -> str:
    """The text of README.md.

    Args:
        entry: the system's entry, as in report.json.
        dense: scores of the uncompressed model, where they are known.
        encoder: its name in ESPnet's configuration, which says how to use the model.
        options: what no stage knows.
        pictures: names of the structure's plots in the folder.
    """
    name = options.name or entry["name"]
    sections = [
        "---\n" + dump_yaml(front_matter(entry, name, options)) + "---",
        f"# {name}",
        _introduction(entry, options),
        *_results(entry, dense),
        *_sizes(entry),
        *_speed(entry),
    ]
    if pictures:
        sections.append("## Structure\n\nUnits kept, of those that there were, by block and kind:")
        sections += [f"![units kept by block and kind]({picture})" for picture in pictures]
    return "\n\n".join([*sections, _use(encoder), *_origin(entry)]) + "\n"


def front_matter(entry: Mapping, name: str, options: CardOptions) -> dict:
    """The card's YAML."""
    about = {
        "license": options.license,
        "language": list(options.languages),
        "library_name": "espnet_prune",
        "pipeline_tag": TASK,
        "tags": [*TAGS, TASK],
        "datasets": [options.dataset] if options.dataset else [],
        "metrics": ["wer"] if entry["wer"] else [],
        "model-index": _model_index(entry, name, options),
    }
    return {key: value for key, value in about.items() if value}


def _model_index(entry: Mapping, name: str, options: CardOptions) -> list[dict]:
    """Word error rates; none without a name of the corpus, which the hub demands."""
    corpus = options.corpus or options.dataset
    if not corpus:
        return []
    kind = options.dataset or re.sub(r"\W+", "-", corpus.lower())
    results = []
    for key, score in entry["wer"].items():
        split, _, mode = key.rpartition("/")
        results.append(
            {
                "task": {"type": TASK, "name": "Automatic Speech Recognition"},
                "dataset": {"name": f"{corpus} {split}", "type": kind, "split": split},
                "metrics": [
                    {"type": "wer", "value": round(score["wer"], 2), "name": f"WER, {mode}"}
                ],
            }
        )
    return [{"name": name, "results": results}] if results else []


def _introduction(entry: Mapping, options: CardOptions) -> str:
    text = f"A speech recognition model of ESPnet, compressed by espnet_prune's `{entry['method']}`"
    text += f", of {options.corpus}." if options.corpus else "."
    sparsity = entry["sparsity"]
    if sparsity:
        text += (
            f" Sparsity: {100 * sparsity['value']:.2f}% of {sparsity['total']:,} prunable "
            f"{sparsity['measure']}, of which {sparsity['kept']:,} are left."
        )
    return text


def _results(entry: Mapping, dense: Mapping | None) -> list[str]:
    if not entry["wer"]:
        return []
    rows = []
    for key, score in entry["wer"].items():
        low, high = score["ci95"]
        cells = [key, f"{score['wer']:.2f}", f"{low:.2f} to {high:.2f}", f"{score['words']:,}"]
        p_value = score.get("p_vs_teacher")
        cells.append("" if p_value is None else f"{p_value:.3g}")
        theirs = ((dense or {}).get("wer") or {}).get(key)
        cells.append(f"{theirs['wer']:.2f}" if theirs else "")
        rows.append(cells)
    header = ["set/decoding", "WER %", "95% interval", "words", "p", "WER % uncompressed"]
    note = "p is that of a matched-pair test against the uncompressed model."
    hows = {s["normalisation"] for s in entry["wer"].values() if s.get("normalisation")}
    note += "".join(f" Texts were normalised by {how}." for how in sorted(hows))
    return ["## Word error rate", _table(header, rows), note]


def _sizes(entry: Mapping) -> list[str]:
    parts = [(name, (entry["params"] or {}).get(part)) for part, name in PARTS.items()]
    rows = [[name, f"{p['kept']:,}", f"{p['dense']:,}"] for name, p in parts if p]
    size = entry["weights_bytes"]
    if size:
        rows.append(["file of weights", in_bytes(size["kept"]), in_bytes(size["dense"])])
    if not rows:
        return []
    note = [ZEROS] if prunes_single_weights(entry) else []
    return ["## Size", _table(["parameters", "kept", "before"], rows), *note]


def _speed(entry: Mapping) -> list[str]:
    rtf, speedup, machine = entry["rtf"], entry["speedup"], entry["machine"]
    if not (rtf and speedup):
        return []
    names = [n for n in ("encoder", "ctc_greedy", "joint") if rtf.get(n) and speedup.get(n)]
    rows = [[n.removeprefix("ctc_"), f"{rtf[n]:.4f}", f"{speedup[n]:.2f}"] for n in names]
    for kind, part in (entry.get("int8") or {}).items():
        steady = {n: v for n, v in (part["rtf"] if part else {}).items() if v is not None}
        for name, value in steady.items():
            label = f"{name.removeprefix('ctc_')}, {kind.replace('_', ' ')}"
            rows.append([label, f"{value:.4f}", f"{part['speedup'][name]:.2f}"])
    text = f"{rtf['threads']} thread, batch {rtf['batch']}"
    text += f", on {machine['cpu']}" if machine else ""
    text += f"; the multiply-accumulates alone predict {speedup['predicted']:.2f} for the encoder."
    header = ["", "real-time factor", "times as fast as before"]
    return ["## Speed", _table(header, rows), text]


def _use(encoder: str) -> str:
    lines = ["import espnet_prune", "", 'model = espnet_prune.load("FOLDER")  # this repository']
    family = family_called(encoder)
    if family is not None and family.usage:
        lines.append(family.usage)
    code = "\n".join(lines)
    shell = (
        "espnet-prune transcribe --model FOLDER talk.flac\n"
        "espnet-prune export_onnx --model FOLDER --out onnx  # for ONNX Runtime alone"
    )
    return f"## Use\n\n```python\n{code}\n```\n\n```bash\n{shell}\n```"


def _origin(entry: Mapping) -> list[str]:
    text = f"## How it was made\n\n{made(entry)}."
    if not entry["commands"]:
        return [text]
    return [text, "```bash\n" + "\n".join(entry["commands"]) + "\n```"]


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
