"""How good enlarged pictures are: measures, sets of pictures, statistics and the report.

Pictures are RGB, uint8, "b 3 h w" or "3 h w", as they are in their files: measures are of the
256 levels that people see, not of a network's floats.
"""
