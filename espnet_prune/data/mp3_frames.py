"""Whether an MP3 ends with a whole frame: one that was cut may tell it by nothing else.

A frame begins with 11 set bits, its version, layer, bit rate and sampling rate, from which its size
follows (ISO/IEC 11172-3 and 13818-3, layer III).
"""

from typing import BinaryIO

HEAD_BYTES = 4
KILOBITS_1 = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)  # of version 1
KILOBITS_2 = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)  # of versions 2 and 2.5
HERTZ = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
LAYER_3, VERSION_1 = 1, 3  # as the bits have them
ENDS_WITHIN = "it ends within a frame, so that its end may be missing"


def ends_within_a_frame(file: BinaryIO, first: int, last: int) -> bool:
    """Whether the last of the frames that follow each other is cut.

    Args:
        file: an MP3.
        first: where its first frame begins.
        last: where its frames end, without the tags behind them.

    Returns:
        False also where they end earlier, before something that is no frame.
    """
    at = first
    while last - at >= HEAD_BYTES:
        file.seek(at)
        size = _frame_bytes(file.read(HEAD_BYTES))
        if size is None:
            return False
        at += size
    return at > last


def _frame_bytes(head: bytes) -> int | None:
    """Size of a frame by its head; None where this is none of layer III, or of a free bit rate."""
    version, layer = head[1] >> 3 & 3, head[1] >> 1 & 3
    rate, hertz, padding = head[2] >> 4, head[2] >> 2 & 3, head[2] >> 1 & 1
    is_frame = head[0] == 0xFF and head[1] >= 0xE0 and layer == LAYER_3 and version in HERTZ
    if not is_frame or not 1 <= rate <= len(KILOBITS_1) or hertz == 3:
        return None
    kilobits = (KILOBITS_1 if version == VERSION_1 else KILOBITS_2)[rate - 1]
    bytes_a_frame = 144 if version == VERSION_1 else 72  # samples a frame over 8 bits
    return bytes_a_frame * kilobits * 1000 // HERTZ[version][hertz] + padding
