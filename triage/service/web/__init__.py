"""The pages that people see: worklist, study, admin, login. Events keep them up to date.

    pages       the routes
    listing     the rows of the worklist, and what is asked of them
    reading     what the study page says of findings
    beside      volumes, versions, timeline, files, what readers said
    machine     what the admin page says of bundle, queue, disk, people
    people      patients' names and ages as text, masked on request
    wishes      language, theme, masking: cookies
    words       one table of texts a language
    assets      scripts, styles and pinned libraries, served from here alone

The pages hold no inline script and no inline style; without scripts the list can still be read.
"""
