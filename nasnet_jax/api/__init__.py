"""What `import nasnet_jax as nas` gives, a module for each kind of name.

Nothing here searches or trains: configs, commands and these functions call the
same jobs. The root package imports the names lazily; nothing else does.
"""
