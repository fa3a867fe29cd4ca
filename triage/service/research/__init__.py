"""De-identified studies with their answers, for research; off until a setting allows it."""
