"""Where the time of a replay goes, in files that other tools open."""
