"""The conformance suite, one module for each theme.

:mod:`daskbroker.testing` shows how to apply it to a store.
"""

from __future__ import annotations

from .arrays import ArrayConformance
from .bad_runs import BadRunConformance
from .checks import CheckConformance
from .copies import CopyConformance
from .datasets import DatasetConformance
from .dimensions import DimensionConformance
from .display import DisplayConformance
from .event_pages import PageConformance
from .filling import FillConformance
from .filling_claims import FillClaimConformance
from .filling_extra import ExtraFrameConformance
from .filling_rules import FillRuleConformance
from .filling_sequences import FillSequenceConformance
from .filling_unlike_files import FillUnlikeFilesConformance
from .frames_again import FramesAgainConformance
from .inserted_again import InsertedAgainConformance
from .live import LiveConformance
from .missing import MissingConformance
from .model import ModelConformance
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
    FillSequenceConformance,
    FillUnlikeFilesConformance,
    ExtraFrameConformance,
    MissingConformance,
    FramesAgainConformance,
    DimensionConformance,
    DisplayConformance,
):
    """All tests that a store must pass; they use only the general contracts.

    A subclass must define the fixtures ``broker`` and ``reopen``; see
    :class:`daskbroker.testing.base.Conformance`. :class:`BadRunConformance` is separate: it is for
    stores whose subclass also defines how a document is damaged.
    """
