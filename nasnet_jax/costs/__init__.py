"""What a network costs: parameters and multiply-adds counted, bytes as XLA
counts them, latency measured."""
