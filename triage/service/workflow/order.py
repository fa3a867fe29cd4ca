"""The order of the queue: STAT orders, then live studies, then cohorts; nothing waits for ever.

Every received study waits in the records. Of each class only a few at a time (`WINDOW`, oldest
first) stand on the durable queue, each with a turn: the time at which it was put there plus the
patience of its class. The queue takes the smallest turn. So

- a study with a higher class goes first, unless the other one has stood on the queue for longer
  than its patience (`test_order.py` holds the bound);
- at most `WINDOW` studies of a lower class can overtake a higher one in the time of one patience,
  however long the service was down and however many thousand studies wait behind them.
"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import IntEnum

START = datetime(2026, 1, 1, tzinfo=UTC)  # keeps a turn within the queue's 31 bits until 2094


class Rank(IntEnum):
    """The class of a waiting study, as the records store it."""

    STAT = 0  # the order said so
    LIVE = 1  # a scanner, a PACS or an upload
    COHORT = 2  # retrospective, `triage submit`


# Seconds after which a waiting study goes before newcomers of a higher class.
PATIENCE: dict[Rank, float] = {Rank.STAT: 0.0, Rank.LIVE: 600.0, Rank.COHORT: 3600.0}
# Studies of a class on the queue at a time, for each worker.
WINDOW: dict[Rank, int] = {Rank.STAT: 16, Rank.LIVE: 4, Rank.COHORT: 2}


def turn(rank: Rank, since: datetime) -> int:
    """The study's place, smaller is sooner: seconds from START at which its patience ends.

    `since`: when it was put on the queue (UTC). A clock that is wrong moves at most `WINDOW`
    studies of a class, and all of them alike.
    """
    seconds = (since - START).total_seconds() + PATIENCE[rank]
    return min(max(1, round(seconds)), 2**31 - 1)
