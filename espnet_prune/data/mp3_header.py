"""What the first frame of an MP3 tells of the whole, where its encoder wrote such a one.

In place of sound LAME and others write "Xing" (variable bit rate) or "Info" (constant), flags and,
as they say, the number of frames and of bytes (http://gabriel.mp3-tech.org/mp3infotag.html). An
ID3v2 tag may stand before it (https://id3.org/id3v2.3.0).
"""

import re
from pathlib import Path

ID3, ID3_BYTES = b"ID3", 10  # of its head, which ends with the size of the rest
ID3_SHIFTS = (21, 14, 7, 0)  # that size has 7 bits a byte
# a frame's head of layer III, which ends where the side information of one or two channels does
HEADER = re.compile(rb"\xff[\xe2-\xff].{11,36}?(?:Xing|Info)(.{4})(.{8})", re.DOTALL)
HEADER_BYTES = 64  # in which all of it stands
HAS_FRAMES, HAS_BYTES = 1, 2


def told_bytes(path: Path) -> int | None:
    """Size of the file by its header; None if it is no MP3 or has no header that tells."""
    with path.open("rb") as file:
        head, tag = file.read(ID3_BYTES), 0
        if len(head) == ID3_BYTES and head.startswith(ID3):
            parts = zip(head[-len(ID3_SHIFTS) :], ID3_SHIFTS, strict=True)
            tag = ID3_BYTES + sum(byte << shift for byte, shift in parts)
        file.seek(tag)
        found = HEADER.match(file.read(HEADER_BYTES))
    flags = int.from_bytes(found[1], "big") if found else 0
    if found is None or not flags & HAS_BYTES:
        return None
    start = 4 if flags & HAS_FRAMES else 0
    return tag + int.from_bytes(found[2][start : start + 4], "big")
