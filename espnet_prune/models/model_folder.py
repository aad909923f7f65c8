"""What a model's folder, as the stages write it, holds for those who decode with it.

Nothing here imports torch or ESPnet.
"""

from pathlib import Path
from typing import Any

import yaml

from espnet_prune.errors import DataError, ModelError
from espnet_prune.io_atomic import read_json
from espnet_prune.models.whisper import WHISPER

DESCRIPTION, OWN_WEIGHTS = "model.json", "model.safetensors"  # of ``espnet_prune.save``
ESPNET_FOLDER, CONFIG, WEIGHTS = "espnet", "config.yaml", "model.pth"  # for stock ESPnet
BPE, STATISTICS = "bpe.model", "feats_stats.npz"  # beside them
# libyaml's reads a list of 5000 tokens in 0.06 s, Python's in 0.5 s
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def is_whisper_folder(folder: Path) -> bool:
    """Whether a model's folder, as ``espnet_prune.save`` writes it, holds a Whisper.

    Raises:
        DataError: its description is damaged.
    """
    path = folder / DESCRIPTION
    if not path.exists():
        return False
    description = read_json(path)
    config = description.get("config") if isinstance(description, dict) else None
    return isinstance(config, dict) and config.get("encoder") == WHISPER


def model_files(model: Path) -> tuple[Path, Path]:
    """Configuration and weights of a model, as ESPnet reads them; of Whisper, as we do.

    Raises:
        DataError: its description is damaged.
        ModelError: a file is missing.
    """
    if is_whisper_folder(model):
        return model / DESCRIPTION, model / OWN_WEIGHTS
    files = model / ESPNET_FOLDER / CONFIG, model / ESPNET_FOLDER / WEIGHTS
    for path in files:
        if not path.exists():
            raise ModelError(f"{path}: no such file; run the stages that make this model")
    return files


def read_espnet_config(path: Path) -> dict[str, Any]:
    """A configuration that ESPnet, or we for it, wrote.

    Raises:
        DataError: it is missing, no YAML, or no mapping.
    """
    again = "make the model's folder again, or copy it again from where it is whole"
    try:
        config = yaml.load(path.read_text(encoding="utf-8"), LOADER)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        problem = " ".join(str(error).split())
        raise DataError(f"{path}: can't be read as YAML ({problem}); {again}") from error
    if not isinstance(config, dict) or not config:
        raise DataError(f"{path}: a mapping of keys was expected, not {config!r}; {again}")
    return config


def names_other_places(model: Path) -> bool:
    """Whether ESPnet's configuration names files elsewhere, as after a move or in a copy.

    Raises:
        DataError: the configuration is damaged.
    """
    folder = (model / ESPNET_FOLDER).resolve()
    config = read_espnet_config(folder / CONFIG)
    named = config.get("bpemodel"), (config.get("normalize_conf") or {}).get("stats_file")
    return any(Path(path).resolve().parent != folder for path in named if path)
