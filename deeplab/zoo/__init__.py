"""The checkpoints that the original's authors published: what they are, how they scored, and how to get them."""
