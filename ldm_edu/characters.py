"""Letters, numbers and lower case as CLIP's published tokenizer sees them, in any script.

Its library (Hugging Face `tokenizers` 0.23) has letters and numbers of Unicode 16, lower case
of 17, combining marks of 9; Python has those of its version, 14 in Python 3.11. The tables
below say what differs, so that a caption has the same ids on every Python.
"""

import re
import unicodedata


def normalize(text: str) -> str:
    """Composed characters (NFC), one space for any white space, lower case.

    Each character is lowered alone: a Greek word's last sigma becomes σ, not ς.
    """
    parts = _LATER_MARK.split(text)  # a starter in Unicode 9: nothing moves across it
    text = "".join(unicodedata.normalize("NFC", part) for part in parts)
    text = _SPACE.sub(" ", text)
    return "".join([c.lower() for c in text]).translate(_LATER_LOWER)


def kinds(text: str) -> str:
    """One letter a character: L letter, N number, S space, O other; "a 1!" -> "LSNO"."""
    return "".join(map(_kind, text))


def _kind(c: str) -> str:
    if c.isalpha() or ord(c) in _LATER_LETTERS:  # Unicode's categories L*
        return "L"
    if c.isnumeric() or ord(c) in _LATER_NUMBERS:  # N*: also ½ and Ⅷ, not the letter 三
        return "N"
    return "S" if c == " " else "O"


def _code_points(ranges: str) -> frozenset[int]:
    pairs = [[int(end, 16) for end in r.split("-")] for r in ranges.split()]
    return frozenset(c for pair in pairs for c in range(pair[0], pair[-1] + 1))


# Python also takes four separators of ASCII, 1C to 1F, for white space
_SPACE = re.compile(r"[^\S\x1c-\x1f]+")

_LATER_LETTERS = _code_points("""
    1C89-1C8A A7CB-A7CD A7DA-A7DC 105C0-105F3 10D4A-10D65 10D6F-10D85 10EC2-10EC4 1123F-11240
    11380-11389 1138B 1138E 11390-113B5 113B7 113D1 113D3 11BC0-11BE0 11F02 11F04-11F10
    11F12-11F33 1342F 13441-13446 13460-143FA 16100-1611D 16D40-16D6C 18CFF 1B132 1B155
    1DF25-1DF2A 1E030-1E06D 1E4D0-1E4EB 1E5D0-1E5ED 1E5F0 2B739 2EBF0-2EE5D 31350-323AF
""")
_LATER_NUMBERS = _code_points("""
    10D40-10D49 116D0-116E3 11BF0-11BF9 11F50-11F59 16130-16139 16D70-16D79 1CCF0-1CCF9
    1D2C0-1D2D3 1E4F0-1E4F9 1E5F1-1E5FA
""")
_LATER_LOWER = {0xA7CB: 0x264, 0xA7DC: 0x19B}
_LATER_LOWER |= {c: c + 1 for c in (0x1C89, 0xA7CC, 0xA7CE, 0xA7D2, 0xA7D4, 0xA7DA)}
_LATER_LOWER |= {c: c + 0x20 for c in range(0x10D50, 0x10D66)}
_LATER_LOWER |= {c: c + 0x1B for c in range(0x16EA0, 0x16EB9)}

# marks that Unicode has moved or composed since version 9
_LATER_MARKS = _code_points("""
    5C8-5C9 7FD 897-89F 8CA-8D3 9FE C3C D3B-D3C EBA 1715 1ABF-1AF0 1DF6-1DFA A82C 105D2 105DA
    10D24-10D27 10D69-10D6D 10EAB-10EAC 10ECB-10ECF 10EF0-10EFB 10EFD-10EFF 10F46-10F50
    10F82-10F85 11070 1133B 113B8 113BB 113C2 113C9 113CE-113D0 1145E 11839-1183A 11930
    1193D-1193E 11943 119E0 11A34 11A47 11A99 11D42 11D44-11D45 11D97 11F41-11F42 1611E-16120
    16129 1612F 16D67 16FF0-16FF1 1D127-1D128 1D250-1D252 1D25B-1D25C 1D25F 1D280-1D281 1E08F
    1E130-1E136 1E2AE 1E2EC-1E2EF 1E4EC-1E4EF 1E5EE-1E5EF 1E6E3 1E6E6 1E6EE-1E6EF 1E6F5
""")
_LATER_MARK = re.compile(f"([{''.join(map(chr, sorted(_LATER_MARKS)))}])")
