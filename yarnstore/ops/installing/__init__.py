"""Install a version: materialise it, move `installed`, run the self-check; updates and pins.

The way in is `checkout.checkout` and `update.update`; `activate` moves the ref and the link.
"""
