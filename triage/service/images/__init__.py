"""Image files of the service: durable, under generated names, below `TRIAGE_HOME/images`.

files.Files        writing, placing, removing; the owner's lock; the sweep at start
retention          deleting what has expired
"""
