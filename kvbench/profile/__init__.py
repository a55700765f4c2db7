"""Profiles of a replay's time, in files that other tools open."""
