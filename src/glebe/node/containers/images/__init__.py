"""Images: references, local OCI layouts and root directories, registries, the store, unpacking.

Nothing here is imported before a pod asks for an image.
"""
