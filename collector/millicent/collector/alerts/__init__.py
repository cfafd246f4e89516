"""What rules see, what follows from it, and how it is told."""
