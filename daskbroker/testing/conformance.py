"""The conformance suite as a whole; see :mod:`daskbroker.testing` for how a store joins it."""

from __future__ import annotations

from .arrays import ArrayConformance
from .bad_runs import BadRunConformance
from .checks import CheckConformance
from .copies import CopyConformance
from .datasets import DatasetConformance
from .display import DisplayConformance
from .filling import FillConformance
from .filling_claims import FillClaimConformance
from .filling_extra import ExtraFrameConformance
from .filling_rules import FillRuleConformance
from .inserted_again import InsertedAgainConformance
from .live import LiveConformance
from .missing import MissingConformance
from .model import ModelConformance, PageConformance
from .nouns import NounConformance
from .order import OrderConformance
from .repeats import RepeatConformance
from .searching import SearchConformance
from .times import TimeConformance
from .values import ValueConformance

__all__ = ["BadRunConformance", "BrokerConformance"]


class BrokerConformance(
    ModelConformance,
    PageConformance,
    CopyConformance,
    DatasetConformance,
    CheckConformance,
    InsertedAgainConformance,
    LiveConformance,
    NounConformance,
    OrderConformance,
    RepeatConformance,
    SearchConformance,
    TimeConformance,
    ValueConformance,
    ArrayConformance,
    FillConformance,
    FillRuleConformance,
    FillClaimConformance,
    ExtraFrameConformance,
    MissingConformance,
    DisplayConformance,
):
    """Everything a store has to pass, written against the contracts in general.

    :class:`BadRunConformance` is for stores that say how a document of theirs is damaged.

    A subclass gives the fixtures ``broker`` and ``reopen``, see
    :class:`daskbroker.testing.base.Conformance`.
    """
