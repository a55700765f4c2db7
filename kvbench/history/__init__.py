"""Values over commits: the repository's commits in order, and asv's results as series over them."""
