"""Recorded searches: the file format, writing, reading, replaying."""
