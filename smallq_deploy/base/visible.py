"""Foreign text on a terminal: what would move the cursor, hide or reorder characters is shown instead of done."""

from __future__ import annotations

import re

# C0 and C1 controls, bytes that were no text (surrogates), line separators, and the marks that reorder or hide text.
_HIDDEN = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ud800-\udfff\ufeff]")


def _escape(found: re.Match[str]) -> str:
    code = ord(found.group())
    if 0xDC80 <= code <= 0xDCFF:  # how Python keeps a byte of a name that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def visible(text: str, *, lines: bool = True) -> str:
    """``text`` with every control and invisible character written as an escape; newlines too unless ``lines``."""
    if not lines:
        text = text.replace("\n", "\\n")
    return text if text.isascii() and text.isprintable() else _HIDDEN.sub(_escape, text)
