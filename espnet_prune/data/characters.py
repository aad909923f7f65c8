"""Characters that nobody sees, but by which two texts or names that look alike differ."""

import unicodedata

BYTE_ORDER_MARK = "\ufeff"
INVISIBLE = ("Cc", "Cf", "Co", "Cn", "Cs")  # Unicode's categories: control, format, no character
# Of these, what joins letters or keeps them apart is a part of words in many scripts.
JOINERS = "\u200c\u200d"


def invisible_in(text: str, joiners: bool = False) -> list[str]:
    """The invisible characters of a text, each once, in their order.

    Args:
        text: any; white space counts as visible.
        joiners: whether ``JOINERS`` count, as they do in a name.
    """
    found = []
    for character in text:
        if character in found or (character in JOINERS and not joiners) or character.isspace():
            continue
        if unicodedata.category(character) in INVISIBLE:
            found.append(character)
    return found


def name_of(character: str) -> str:
    """Its number and name, such as ``U+200B ZERO WIDTH SPACE``."""
    return f"U+{ord(character):04X} {unicodedata.name(character, 'without a name')}"


def without_invisible(text: str) -> str:
    """The text without its invisible characters."""
    hidden = set(invisible_in(text))
    return "".join(character for character in text if character not in hidden)
