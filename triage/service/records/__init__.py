"""What the service knows, in one database: SQLite by default, PostgreSQL for several machines.

    database.Database(url)    .session() to write, .reading() to read, .upgrade() at start
    models, access_models, delivery_models, drift_models, reading_models    the tables
    studies                   studies, series, instances: what the intake and the lists need
    analyses                  analyses, findings, workers: what the workflow needs
    cohorts                   retrospective studies by the thousand
    quarantine                what was taken but belongs to no study
    reading                   what readers said of findings
    deliveries                the outbox
    drift                     figures of what came in, warnings that they moved
    orders                    what was asked for

Everything outside this package calls these functions with a session; SQL is written here only.
One `with database.session() as session:` is one transaction: it commits on leaving, and takes the
write lock of SQLite at its beginning, so keep it short and never wait inside it.

**Images version.** `Study.images_version` counts the sets of images that were declared complete.
While images arrive the study is `received`; once complete, `ready_version` equals `images_version`
and `on_ready(study id, images version)` is called. A later image makes `images_version` one more.
`analyses.begin` ties an analysis to the images version that it saw; `analyses.finish` makes it the
current one unless a newer images version was analysed already. At most one analysis of a study is
current; the database itself forbids a second.

Times are UTC and aware.
"""

from . import access_models as access_models  # the migrations must know every table
from . import delivery_models as delivery_models
from . import drift_models as drift_models
from . import reading_models as reading_models
from .database import Database, DatabaseBusyError, DatabaseFullError

__all__ = ["Database", "DatabaseBusyError", "DatabaseFullError"]
