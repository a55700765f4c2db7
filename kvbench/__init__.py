"""The benchmark suite of kvcache: record, replay, measure, judge and report."""
