"""Training: data, losses, the stages and the loop that runs them."""
