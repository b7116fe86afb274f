"""Memory: what a run will need, what a device has, and how to fit the one into the other."""
