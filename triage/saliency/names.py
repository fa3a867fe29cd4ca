"""Names that light commands need: ways to explain, and the folders that a viewer reads."""

from __future__ import annotations

from enum import StrEnum

SCENE, MESHES = "scene", "meshes"  # see `scene` for what lies in them
SHEETS = ("overlays/contact_sheet.png", "overlays/contact_sheet.pdf")


class Method(StrEnum):
    """How an answer is explained. `map` costs nothing; the others take seconds to minutes."""

    MAP = "map"  # the logit maps that gave the answer: Grad-CAM in closed form
    GRADCAM = "gradcam"  # Layer Grad-CAM, Selvaraju et al., ICCV 2017
    INTEGRATED_GRADIENTS = "integrated-gradients"  # Sundararajan et al., ICML 2017
    OCCLUSION = "occlusion"  # Zeiler & Fergus, ECCV 2014
    GRADIENT_SHAP = "gradient-shap"  # Lundberg & Lee, NeurIPS 2017
