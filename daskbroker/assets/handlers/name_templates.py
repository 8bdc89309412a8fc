"""File names of a sequence, made from templates in documents, which are not trusted."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable
from string import Formatter

from ...core.errors import FillError
from ..files.readable import ReadableRoots

WIDEST = 64
"""Maximum digits that a number is padded to, so that no template asks for a text that fills the
memory."""
_PERCENT = re.compile(r"%([-+ 0#]*)(\d*)(?:\.(\d*))?([sdiu%])")
_BRACES = re.compile(r"[<>^=]?[-+ ]?0?(\d*)d?")


def check_percent(template: str) -> str:
    """Check that a template in C's style, such as ``%s%s_%6.6d.tif``, is harmless; return it.

    Raises
    ------
    FillError
        If it has conversions other than texts and whole numbers, or any wider than ``WIDEST``.
    """
    if not isinstance(template, str) or "%" in _PERCENT.sub("", template):
        raise FillError(f"the template {template!r} has fields other than %s and %d")
    for _, width, precision, _ in _PERCENT.findall(template):
        if max(int(width or 0), int(precision or 0)) > WIDEST:
            raise FillError(f"the template {template!r} is wider than {WIDEST} digits")
    return template


def numbered_name(template: str, filename: str, number: int) -> str:
    """Return the name of one file of a stream resource's sequence.

    Parameters
    ----------
    template
        Template in the style of ``str.format`` with one number, or in C's style. In C's style the
        first ``%s`` is replaced by the file name; others, meant for the folder, by nothing.
    filename
        The resource's parameter ``filename``.
    number
        Number of the file, from 0.

    Raises
    ------
    FillError
        If the template has parts other than these.
    """
    if "%" in template:
        texts = iter([filename])
        parts = _PERCENT.split(check_percent(template))
        conversions = parts[4::5]
        arguments = [next(texts, "") if c == "s" else number for c in conversions if c != "%"]
        return template % tuple(arguments)
    escaped = filename.replace("{", "{{").replace("}", "}}")
    return _check_braces(template).replace("{:s}", escaped).format(number)


def _check_braces(template: str) -> str:
    """Return a template if its only fields are a plain number and ``{:s}``, else raise.

    Other fields of ``str.format`` could read attributes and items of the arguments.
    """
    try:
        fields = [
            (name, spec, conversion) for _, name, spec, conversion in Formatter().parse(template)
        ]
    except (ValueError, TypeError):
        raise FillError(f"the template {template!r} is not valid") from None
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
    """Return the number of files of a sequence, from number 0 on; at least ``last + 1``.

    The sequence is assumed to have no gaps after ``last``, so its end is found by bisection: a
    folder of many files is not listed, and if ``last`` is the last file, one look-up is enough.

    Parameters
    ----------
    name
        Function that returns the path of the file with a number.
    last
        Number of the file that is expected to be the last. It is not looked up itself.
    readable
        Files that may be opened; others count as missing.
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
