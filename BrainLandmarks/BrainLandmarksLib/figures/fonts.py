"""Names in any script on pictures: matplotlib's own font knows no Chinese, Japanese or Korean.

>>> make_legible(figure)
>>> figure.savefig("head.png")
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FALLBACKS = (
    "Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans JP", "Noto Sans SC", "Noto Sans KR",
    "Source Han Sans", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "Droid Sans Fallback",
    "IPAexGothic", "Microsoft YaHei", "SimHei", "Yu Gothic", "MS Gothic", "Malgun Gothic",
    "Hiragino Sans", "PingFang SC", "Heiti SC", "Apple SD Gothic Neo", "Arial Unicode MS",
    "Noto Sans", "Noto Sans Devanagari", "Noto Sans Thai",
)  # fmt: skip
"""Fonts that systems come with; those that are installed are asked in this order."""

_USUAL = "sans-serif"
_NO_GLYPH = "\N{WHITE SQUARE}"


def make_legible(figure: Figure) -> None:
    """Give each text of a figure fonts that have its characters, or squares where none has.

    Dollar signs stand for themselves: a file's name is no formula.
    """
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        written = text.get_text()
        plain = written.isascii() and "$" not in written
        if plain or r"\mathdefault" in written:  # the latter are ticks of a logarithmic axis
            continue
        legible, families = _legible(written)
        text.set_text(legible.replace("$", r"\$"))
        if families:
            text.set_fontfamily([_USUAL, *families])


def _legible(text: str) -> tuple[str, list[str]]:
    """A text as it can be drawn, and the families that it needs besides the usual one."""
    missing = {c for c in text if not c.isspace() and ord(c) not in _characters(_USUAL)}
    families = []
    for name in _FALLBACKS:
        found = {c for c in missing if ord(c) in _characters(name)} if missing else set()
        if found:
            families.append(name)
            missing -= found
    return "".join(_NO_GLYPH if c in missing else c for c in text), families


@functools.cache
def _characters(family: str) -> frozenset[int]:
    """The characters of a font family; none if it is not installed."""
    from matplotlib import font_manager

    installed = font_manager.fontManager.ttflist
    if family == _USUAL:
        path = str(font_manager.findfont(font_manager.FontProperties()))
    else:
        path = next((font.fname for font in installed if font.name == family), "")
    return frozenset(font_manager.get_font(path).get_charmap()) if path else frozenset()
