"""The vocabulary of a search space: every part of a recipe. Importing it loads no torch."""
