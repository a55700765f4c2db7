"""The regression gate: two commits measured side by side, and a verdict that can be trusted."""
