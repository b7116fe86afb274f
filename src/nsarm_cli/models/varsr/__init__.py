"""VARSR (arXiv 2501.18993): super-resolution by visual autoregression with prefix tokens."""
