"""Faces: APIs of other tools, by which they download models from a store.

    front      picks the face that a request is for, and sends what it answers
    library    which versions a client may see, and downloading those that are not stored
    hub        the API of the Hugging Face Hub
    oci        the distribution API of OCI registries; `shapes` and `volumes` have the images of a version
    joined     files and bytes one after the other, as a layer is

A face is on only if `ystore serve` was told so.  It never installs a version or changes a ref of an installed
one.  docs/serve.md governs them.
"""
