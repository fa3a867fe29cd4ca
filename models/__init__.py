"""The bundles, as a package, so that a wheel carries them."""
