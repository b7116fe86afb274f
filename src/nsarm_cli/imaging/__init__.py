"""Pictures: files, tensors, windows and colour; no model and no terminal."""
