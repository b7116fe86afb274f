"""Distances between pictures as networks of ImageNet see them: LPIPS and DISTS.

Training uses them as losses and evaluation as measures. The weights are the user's: the
package carries none.
"""
