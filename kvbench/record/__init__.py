"""Where traces come from: searches over models, and seeded trees without one."""
