"""asv's benchmarks: the library of each commit, measured by the harness of this checkout."""
