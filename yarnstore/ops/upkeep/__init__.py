"""Keep a store sound and small: `gc`, `repack`, `fsck`, `repair`, `doctor`."""
