"""Stationary points one by one: polished, judged, proven to attract what is near, told apart, and recognised."""
