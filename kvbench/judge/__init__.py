"""When is something worse: every rule and every smallest effect, each once. ``gate`` and ``report`` only call it."""
