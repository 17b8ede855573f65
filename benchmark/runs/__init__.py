"""From questions to records: planned, run, shown while they run."""
