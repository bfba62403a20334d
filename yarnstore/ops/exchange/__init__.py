"""Import from where other tools keep models, export to there, and find copies of models on a disk.

    address                 `hf://org/name`: a model in another tool, and the folders of the tools
    importing, exporting    what the imports and exports of all tools have in common
    elsewhere               a version that was found in another tool, or is being written there
    hf_cache, lm_studio, oci_layout, ollama    the layouts of tools
    knowledge, identify     what a content is, by its SHA-256 or its headers
    copies, adopt           copies of models on a disk, and replacing them

`ops/local/import_export` imports and exports plain files and folders.  docs/format/manifest.md says what a
version keeps of the tool that it came from.
"""
