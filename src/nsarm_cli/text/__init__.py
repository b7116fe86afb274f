"""Prompts: their files, the encoder that reads them, and the features that it makes."""
