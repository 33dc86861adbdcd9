//! Path space, path table, policies, baselines, curves and statistics.
