"""The benchmark: suites, runs, records, leaderboards and the command line."""
