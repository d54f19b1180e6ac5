"""What is seen in a patch of tissue: encoders, their weights, cached features, symmetries."""
