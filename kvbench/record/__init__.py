"""Sources of traces: searches over models, and seeded trees without a model."""
