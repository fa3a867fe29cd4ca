"""Abdominal trauma CT triage: five questions answered from one CT series. Research use only."""

__version__ = "0.1.0"
