"""The HTTP API: one file a group of routes, `models.py` for what they answer."""
