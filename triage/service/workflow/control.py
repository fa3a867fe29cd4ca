"""What people ask of the queue. It needs the records alone: any process may call it."""

from __future__ import annotations

from triage.results.report import refused, to_dict
from triage.service.records import Database, analyses, studies
from triage.service.records import queue as waiting

BY_HAND = "by-hand"  # executor of an analysis that ended before a worker began it


def cancel(database: Database, study_id: str) -> bool:
    """No analysis of the images that are there now; False if there is no such study.

    A study that waits is not_analysed (CANCELLED) at once, one under way within seconds; a result
    that stands already stays. Images that come later make a new version, which is analysed.
    """
    with database.session() as session:
        version = waiting.request_cancel(session, study_id)
        if not version:
            return False
        study = studies.get(session, study_id)
        if study is None or analyses.running(session, study_id) is not None:
            return study is not None  # its worker sees the request
        if study.status in studies.FINISHED:
            return True
        analysis = analyses.begin(session, study_id, version, BY_HAND, again=True)
        if analysis is not None:
            analysis.round = study.queue_round
            report = to_dict(refused("CANCELLED", study_instance_uid=study.study_instance_uid))
            analyses.finish(session, analysis.id, report)
        return True


def again(database: Database, study_id: str) -> bool:
    """Analyse once more with the images that are there; False if there are none.

    The old result stays the current one until the new one comes.
    """
    with database.session() as session:
        return waiting.ask_again(session, study_id)
