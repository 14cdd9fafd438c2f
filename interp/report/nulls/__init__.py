"""A run, and what its labels are held against -> supported, specific, better than a baseline?"""
