"""Look inside versions: their tensors, how they are stored, and what changed between two.

The way in is `inspect.inspect` and `diff.diff`; `page` renders a comparison as HTML.
"""
