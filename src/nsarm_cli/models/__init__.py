"""Model families: pure functions and modules, free of files, printing and devices."""
