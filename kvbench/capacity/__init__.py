"""How much a recorded search finds in pools of any size."""
