"""Images of OCI: models in registries of images (`docker://`), and what these have in common with layouts.

    found       an image that was found, as the files of a version
    archives    layers that are tar archives
    making      the image of a version
    repository  a repository of a registry, with its credentials
    pulling     download an image
    pushing     upload one

`core/oci` has the formats, `backends/images` the requests, `exchange/oci_layout` the layouts in folders.
"""
