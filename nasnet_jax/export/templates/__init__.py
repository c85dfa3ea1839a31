"""Text that generated modules are made of; nothing here is imported."""
