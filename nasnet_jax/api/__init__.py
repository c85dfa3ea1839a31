"""What `import nasnet_jax as nas` offers."""
