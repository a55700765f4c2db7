"""Files of results, read and written by one definition each."""
