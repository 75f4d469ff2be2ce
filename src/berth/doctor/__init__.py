"""What is wrong with a host's networks, why it matters, and the command that mends it. Pure: facts in, findings out."""
