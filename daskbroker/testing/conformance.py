"""The conformance suite as a whole; see :mod:`daskbroker.testing` for how a store joins it."""

from __future__ import annotations

from .copies import CopyConformance
from .filling import FillConformance
from .filling_claims import FillClaimConformance
from .filling_rules import FillRuleConformance
from .model import ModelConformance, PageConformance
from .nouns import NounConformance
from .times import TimeConformance

__all__ = ["BrokerConformance"]


class BrokerConformance(
    ModelConformance,
    PageConformance,
    CopyConformance,
    NounConformance,
    TimeConformance,
    FillConformance,
    FillRuleConformance,
    FillClaimConformance,
):
    """Everything a store has to pass, written against the contracts in general.

    A subclass gives the fixtures ``broker`` and ``reopen``, see
    :class:`daskbroker.testing.base.Conformance`.
    """
