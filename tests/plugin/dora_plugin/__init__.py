"""A package outside the tree, which the tests install: one thing for each registry."""
