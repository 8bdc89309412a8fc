"""Names of the files of a sequence, from templates that documents bring along."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable
from string import Formatter

from ...core.errors import FillError
from ..files.readable import ReadableRoots

__all__ = ["check_percent", "count_files", "numbered_name"]

WIDEST = 64
"""Digits a number may be padded to; a template cannot ask for a text that fills the memory."""
_PERCENT = re.compile(r"%([-+ 0#]*)(\d*)(?:\.(\d*))?([sdiu%])")
_BRACES = re.compile(r"[<>^=]?[-+ ]?0?(\d*)d?")


def check_percent(template: str) -> str:
    """A template in C's style, such as ``%s%s_%6.6d.tif``, once it is known to be harmless.

    Raises
    ------
    FillError
        If it has other conversions than texts and whole numbers, or wide ones.
    """
    if not isinstance(template, str) or "%" in _PERCENT.sub("", template):
        raise FillError(f"the template {template!r} has parts that are neither %s nor %d")
    for _, width, precision, _ in _PERCENT.findall(template):
        if max(int(width or 0), int(precision or 0)) > WIDEST:
            raise FillError(f"the template {template!r} is wider than {WIDEST} digits")
    return template


def numbered_name(template: str, filename: str, number: int) -> str:
    """The name of one file of a stream resource's sequence.

    Parameters
    ----------
    template
        In the style of ``str.format`` with one number, or in C's style; there the first ``%s``
        stands for the file name and others, meant for the folder, for nothing.
    filename
        The parameter of this name.
    number
        Of the file, from 0.

    Raises
    ------
    FillError
        If the template has other parts than these.
    """
    if "%" in template:
        texts = iter([filename])
        parts = _PERCENT.split(check_percent(template))
        conversions = parts[4::5]
        arguments = [next(texts, "") if c == "s" else number for c in conversions if c != "%"]
        return template % tuple(arguments)
    return _check_braces(template).replace("{:s}", _escaped(filename)).format(number)


def _escaped(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


def _check_braces(template: str) -> str:
    """A template whose only fields are a plain number and ``{:s}``; a field could reach further."""
    try:
        fields = [
            (name, spec, conversion) for _, name, spec, conversion in Formatter().parse(template)
        ]
    except (ValueError, TypeError):
        raise FillError(f"the template {template!r} is none") from None
    for name, spec, conversion in fields:
        if name is None or (name == "" and spec == "s"):
            continue
        match = _BRACES.fullmatch(spec or "")
        if name not in ("", "0") or conversion or match is None or int(match[1] or 0) > WIDEST:
            raise FillError(
                f"the template {template!r} has fields other than a whole number such as {{:05d}}"
            )
    return template


def count_files(name: Callable[[int], str], last: int, readable: ReadableRoots) -> int:
    """Number of files of a sequence, from number 0 on, if there are more than up to ``last``.

    The sequence is taken to have no gaps after that: a folder of many files is not listed, and
    where ``last`` is the last one, it is only asked for one file.

    Parameters
    ----------
    name
        Path of the file of a number.
    last
        Number of a file that is thought to be the last; the answer is never below it.
    readable
        Which files may be opened, and so be asked for.
    """

    def exists(number: int) -> bool:
        try:
            return readable.exists(name(number))
        except FillError:
            return False

    there, step = last, 1
    if name(last) == name(last + 1):  # the template has no number
        return last + 1
    while exists(there + step):
        there, step = there + step, 2 * step
    return there + bisect_left(range(1, step), True, key=lambda more: not exists(there + more)) + 1
