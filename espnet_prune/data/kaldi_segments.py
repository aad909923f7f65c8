"""Kaldi's ``segments`` and ``reco2file_and_channel``: which part and channel an utterance is.

A line of ``segments`` is an utterance, a recording of ``wav.scp``, and where it begins and ends in
seconds; an end of -1 is the recording's; a fifth field is a channel, counted from 0, as Kaldi's
extract-segments has it. A line of ``reco2file_and_channel`` is a recording, a name, and a channel:
A, B and so on, or a number from 1.
"""

import math
from collections.abc import Mapping
from pathlib import Path

from espnet_prune.data.entry import Entry
from espnet_prune.errors import DataError

SEGMENTS, CHANNELS = "segments", "reco2file_and_channel"
FIELDS = (3, 4)  # behind the utterance


def segment_of(value: str, place: str) -> tuple[str, Entry]:
    """What one line of ``segments`` says behind the utterance.

    Args:
        value: recording, start, end and perhaps a channel.
        place: the file and utterance, for errors.

    Returns:
        The recording, and an entry without its source.

    Raises:
        DataError: it isn't that.
    """
    words = value.split()
    try:
        if len(words) not in FIELDS:
            raise ValueError(f"{len(words) + 1} fields")
        start, end = float(words[1]), float(words[2])
        channel = int(words[3]) + 1 if len(words) == FIELDS[1] else None
        if not (math.isfinite(start) and math.isfinite(end)) or start < 0:
            raise ValueError("a time before the recording")
        if end != -1 and end <= start or channel is not None and channel < 1:
            raise ValueError("an end before the start" if channel is None else "a channel below 0")
    except ValueError as error:
        raise DataError(
            f"{place}: '{value}' ({error}); expected a recording, and where it begins and ends in "
            "seconds"
        ) from error
    return words[0], Entry("", channel, start, None if end == -1 else end)


def channel_of(value: str, place: str) -> int:
    """The channel, from 1, of what a line of ``reco2file_and_channel`` says behind the recording.

    Raises:
        DataError: it isn't a name and a channel.
    """
    words = value.split()
    letter = words[-1] if len(words) == 2 else ""
    if len(letter) == 1 and "A" <= letter <= "Z":
        return ord(letter) - ord("A") + 1
    if letter.isascii() and letter.isdigit() and int(letter) > 0:
        return int(letter)
    raise DataError(
        f"{place}: '{value}'; expected a name and a channel, which is A, B and so on, or 1, 2 ..."
    )


def cut_out(
    recordings: Mapping[str, str],
    segments: Mapping[str, str] | None,
    channels: Mapping[str, str],
    folder: Path,
) -> dict[str, str]:
    """The entries of a directory by utterance.

    Args:
        recordings: entries of ``wav.scp`` by recording.
        segments: lines of ``segments`` by utterance; None where each recording is an utterance.
        channels: lines of ``reco2file_and_channel`` by recording.
        folder: the directory, for errors.

    Raises:
        DataError: a line is malformed, or names a recording that ``wav.scp`` lacks.
    """
    of_channels = {r: channel_of(v, f"{folder / CHANNELS}: '{r}'") for r, v in channels.items()}
    if segments is None:
        pairs = {recording: (recording, Entry("")) for recording in recordings}
    else:
        pairs = {u: segment_of(v, f"{folder / SEGMENTS}: '{u}'") for u, v in segments.items()}
    entries = {}
    for utterance, (recording, part) in pairs.items():
        if recording not in recordings:
            raise DataError(
                f"{folder / SEGMENTS}: '{utterance}' is of '{recording}', which wav.scp hasn't; "
                "add it or drop the utterance"
            )
        whole = Entry.parse(recordings[recording])
        if segments is not None and (whole.is_part or whole.speed != 1):
            raise DataError(
                f"{folder / 'wav.scp'}: '{recording}' is a part, or of another speed, already; "
                "give the whole recording, or leave out `segments`"
            )
        channel = part.channel or of_channels.get(recording) or whole.channel
        start, end = (whole.start, whole.end) if segments is None else (part.start, part.end)
        entries[utterance] = str(Entry(whole.source, channel, start, end, whole.speed))
    return entries
