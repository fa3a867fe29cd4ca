"""The command `triage`: one file a command; heavy imports stay inside the functions."""
