"""The conformance suite as a whole; see :mod:`daskbroker.testing` for how a store joins it."""

from __future__ import annotations

from .checks import CheckConformance
from .copies import CopyConformance
from .filling import FillConformance
from .filling_rules import FillRuleConformance
from .model import ModelConformance, PageConformance
from .nouns import NounConformance
from .repeats import RepeatConformance
from .times import TimeConformance

__all__ = ["BrokerConformance"]


class BrokerConformance(
    ModelConformance,
    PageConformance,
    CopyConformance,
    CheckConformance,
    NounConformance,
    RepeatConformance,
    TimeConformance,
    FillConformance,
    FillRuleConformance,
):
    """Everything a store has to pass, written against the contracts in general.

    A subclass gives the fixtures ``broker`` and ``reopen``, see
    :class:`daskbroker.testing.base.Conformance`.
    """
