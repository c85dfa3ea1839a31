"""Several numbers that count at once: fronts and what they enclose."""
