"""Campaigns at work: workers on Ray, the driver that alone commits, progress, estimates, grids, jobs on a cluster."""
