"""NSARM (arXiv 2510.00820): robust super-resolution by bitwise next-scale autoregression."""
