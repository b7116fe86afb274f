"""How long each stage of a model takes, beside the least that its arithmetic allows."""
