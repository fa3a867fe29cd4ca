"""An intake in a process of its own, to be killed: argv is the home; prints the DICOM port."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

from triage.service.images.files import Files
from triage.service.intake.service import Intake
from triage.service.records import Database
from triage.settings import Settings

home = Path(sys.argv[1])
database = Database.at_home(home)
database.upgrade()
files = Files(home)
files.open()
intake = Intake(Settings(home=home, dicom_port=0), database, files, lambda study, version: None)
intake.start()
print(intake.receiver.port, flush=True)
threading.Event().wait()
