"""Training of the quality networks: which way round, which part of the body."""
