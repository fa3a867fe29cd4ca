"""Folders of an analysis' results that a viewer reads; see `scene` for what lies in them."""

SCENE, MESHES = "scene", "meshes"
