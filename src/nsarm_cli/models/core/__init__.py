"""Mathematics that NSARM and VARSR share: next-scale autoregression over a residual pyramid."""
