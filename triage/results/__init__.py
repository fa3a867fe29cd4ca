"""Results: what leaves the pipeline, as files that other systems read."""
