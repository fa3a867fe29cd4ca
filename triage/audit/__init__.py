"""Suspected wrong labels in an archive or a training set: `triage audit`."""
