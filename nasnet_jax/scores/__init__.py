"""What a network's initial weights say of it, without training."""
