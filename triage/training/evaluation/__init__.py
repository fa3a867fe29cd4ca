"""What a model is worth: metrics with intervals, subgroups, curves, plots, a page."""
