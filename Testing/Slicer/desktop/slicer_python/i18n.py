"""`slicer.i18n`: the texts stay as they are, and must be texts."""

from __future__ import annotations


def tr(text: str) -> str:
    return translate("", text)


def translate(context: str, text: str) -> str:
    if not isinstance(text, str):
        raise TypeError(f"only a text can be translated, not {text!r}")
    return text
