"""What decodes with an exported folder, by the kind of model in it; imports no torch."""

from pathlib import Path

from espnet_prune.errors import ModelError
from espnet_prune.export.folder import WHISPER, read_description
from espnet_prune.export.recogniser import OnnxRecogniser
from espnet_prune.export.whisper_recogniser import OnnxWhisper


def open_exported(
    folder: Path, timestamps: bool = False, segment_seconds: float | None = None
) -> OnnxRecogniser | OnnxWhisper:
    """Opens an export of a whole model.

    Args:
        folder: what ``export_onnx`` made.
        timestamps: whether it must give words with their times.
        segment_seconds: the longest piece of a recording; by default what suits the model.

    Raises:
        DataError: the description is missing.
        ModelError: an encoder alone; Whisper, of which times are asked; damaged files.
        EnvironmentProblem: onnxruntime is missing, or tokenizers for Whisper.
    """
    if read_description(folder)["kind"] != WHISPER:
        return OnnxRecogniser(folder, segment_seconds)
    if timestamps:
        raise ModelError(f"{folder}: --timestamps needs CTC's frames; this is a Whisper")
    return OnnxWhisper(folder, segment_seconds)
