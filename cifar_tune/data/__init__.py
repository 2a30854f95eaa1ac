"""The images of the data sets: located, verified, decoded once and split. Importing it loads no torch."""
