"""Training UniZero with LightZero's own cache and with the new one, from the same seeds, and comparing every number."""
