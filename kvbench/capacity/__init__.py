"""Hit rates of a recorded search in pools of any size."""
