"""How images come in. Every entrance calls the same function, and answers when it returned.

    accept.Acceptor     .accept(data, source): header, durable file, row, and only then the answer
    dimse.Receiver      C-STORE and C-ECHO
    stow.router         STOW-RS
    archive.take_zip    an uploaded zip
    watch.Watcher       a watched folder
    pull.*              list and fetch studies from a PACS (DICOMweb, or C-FIND and C-MOVE)
    complete.Completeness   when a study's images are complete: calls `on_ready`
    service.Intake      all of it together, for `triage serve`

A file is taken once: the same SOPInstanceUID with the same data set again is a `duplicate` and
changes nothing; with another data set it goes to quarantine, where somebody must look.
"""
