"""The vocabulary of a search space: the recipe and all its parts. Importing it loads no torch."""
