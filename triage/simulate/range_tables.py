"""The numbers of `ranges.py`: (low, high, unit, source) by key."""

from __future__ import annotations

Row = tuple[float, float, str, str]

UNITS = ("mm", "HU", "count", "p", "rate", "share", "ml")

AAST = "AAST organ injury scale 2018 revision: Kozar RA et al., J Trauma 2018;85:1119-1122"
BLOOD = "Lubner M et al., Radiographics 2007;27:109-125: unclotted 30-45 HU, clotted 45-70 HU"
JET = (
    "85-370 HU: Shanmuganathan K et al., AJR 1993;161:65-69; near the adjacent vessel: "
    "Willmann JK et al., AJR 2002;179:437-444"
)
GUT = "Brofman N et al., Radiographics 2006;26:1119-1131: distended wall over 3 mm, colon over 5 mm"
CLOT = "sentinel clot: Orwig D, Federle MP, AJR 1989;153:747-749"
OURS = "engineering choice"


def _p(value: float, source: str = OURS) -> Row:
    return value, value, "p", source


def _rate(value: float) -> Row:
    return value, value, "rate", OURS


INJURIES: dict[str, Row] = {
    # what a finished lesion must show; else it is put elsewhere or gets no label
    "visible.contrast_hu": (12, 12, "HU", OURS),
    "visible.edge_hu": (8, 8, "HU", OURS),
    "visible.ml": (0.5, 0.5, "ml", OURS),
    "visible.blush_ml": (0.06, 0.06, "ml", "a sphere of 5 mm, the smallest extravasation drawn"),
    "visible.tries": (8, 8, "count", OURS),
    "blood.unclotted_hu": (30, 45, "HU", BLOOD),
    "blood.clotted_hu": (45, 70, "HU", BLOOD),
    "blood.clotted_p": _p(0.5),
    "blood.uneven_hu": (3, 8, "HU", OURS),
    # laceration: `width_mm` at the capsule, narrowing with depth
    "laceration.depth_mm.liver.low": (14, 45, "mm", f"{AAST}; II 1-3 cm, III over 3 cm"),
    "laceration.depth_mm.liver.high": (55, 110, "mm", f"{AAST}; IV 25-75 % of a lobe"),
    "laceration.depth_mm.spleen.low": (12, 38, "mm", f"{AAST}; II 1-3 cm, III over 3 cm"),
    "laceration.depth_mm.spleen.high": (38, 75, "mm", f"{AAST}; V shattered"),
    "laceration.depth_mm.kidney.low": (9, 22, "mm", f"{AAST}; II up to 1 cm, III over 1 cm"),
    "laceration.depth_mm.kidney.high": (24, 48, "mm", f"{AAST}; IV into the collecting system"),
    "laceration.width_mm.low": (4, 8, "mm", OURS),
    "laceration.width_mm.high": (6, 13, "mm", OURS),
    "laceration.branches.low": (0, 2, "count", OURS),
    "laceration.branches.high": (2, 5, "count", OURS),
    "laceration.count.low": (1, 2, "count", OURS),
    "laceration.count.high": (2, 4, "count", AAST),
    "laceration.edge_mm": (0.7, 1.8, "mm", OURS),
    "contusion.reach_mm": (3, 9, "mm", OURS),
    "contusion.loss_share": (0.05, 0.35, "share", "of the contrast to the blood; " + OURS),
    "haematoma.diameter_mm.liver.low": (20, 60, "mm", f"{AAST}; II under 10 cm"),
    "haematoma.diameter_mm.liver.high": (50, 110, "mm", AAST),
    "haematoma.diameter_mm.spleen.low": (15, 48, "mm", f"{AAST}; II under 5 cm"),
    "haematoma.diameter_mm.spleen.high": (40, 80, "mm", f"{AAST}; III over 5 cm"),
    "haematoma.diameter_mm.kidney.low": (12, 26, "mm", AAST),
    "haematoma.diameter_mm.kidney.high": (24, 48, "mm", AAST),
    "haematoma.edge_mm": (1.5, 4.0, "mm", OURS),
    "subcapsular.thickness_mm.low": (6, 14, "mm", OURS),
    "subcapsular.thickness_mm.high": (14, 32, "mm", OURS),
    "subcapsular.spread_mm.liver.low": (25, 48, "mm", f"{AAST}; I-III by share of the surface"),
    "subcapsular.spread_mm.liver.high": (50, 90, "mm", AAST),
    "subcapsular.spread_mm.spleen.low": (20, 38, "mm", f"{AAST}; I-III by share of the surface"),
    "subcapsular.spread_mm.spleen.high": (40, 70, "mm", AAST),
    "subcapsular.spread_mm.kidney.low": (20, 35, "mm", f"{AAST}; I"),
    "subcapsular.spread_mm.kidney.high": (30, 55, "mm", AAST),
    "perirenal.thickness_mm.low": (6, 15, "mm", f"{AAST}; II-III within Gerota's fascia"),
    "perirenal.thickness_mm.high": (16, 45, "mm", AAST),
    "perirenal.p.low": _p(0.5),
    "perirenal.p.high": _p(0.9),
    "devascularised.share": (0.25, 0.7, "share", f"{AAST}; spleen IV over 25 %"),
    "devascularised.whole_p": _p(0.12, f"{AAST}; kidney V"),
    "devascularised.rim_p": _p(0.3),
    # which injury of a solid organ comes first, and what comes with it
    "first.laceration_p.low": _p(0.55),
    "first.haematoma_p.low": _p(0.25),
    "second.p.low": _p(0.3),
    "with.haematoma_p.high": _p(0.5),
    "with.subcapsular_p.high": _p(0.35),
    "with.devascularised_p.high": _p(0.4),
    "kidney.both_p": _p(0.1),
    "extravasation.diameter_mm": (6, 26, "mm", OURS),
    "extravasation.growth": (1.25, 1.8, "share", "it grows in the delayed phase; " + OURS),
    "extravasation.level_share.arterial": (0.7, 1.0, "share", "of the aorta; " + JET),
    "extravasation.level_share.portal_venous": (0.85, 1.1, "share", "of the aorta; " + JET),
    "extravasation.level_share.delayed": (0.95, 1.4, "share", "of the aorta; " + JET),
    "extravasation.hu": (85, 370, "HU", JET),
    "extravasation.haematoma_share": (1.8, 3.2, "share", "diameter to the blush's; " + OURS),
    "extravasation.in_injury_p": _p(0.8),
    "bowel.wall_p": _p(0.6),
    "bowel.mesentery_p": _p(0.7),
    "bowel.air_p": _p(0.3),
    "bowel.fluid_p": _p(0.6),
    "wall.thickness_mm": (5, 12, "mm", GUT),
    "wall.length_mm": (30, 75, "mm", OURS),
    "wall.oedema_hu": (22, 45, "HU", OURS),
    "wall.haematoma_p": _p(0.35),
    "wall.enhancement_hu": (15, 45, "HU", "mucosa above the normal wall; " + OURS),
    "mesentery.diameter_mm": (20, 60, "mm", OURS),
    "stranding.hu": (35, 75, "HU", "rise of the fat; " + OURS),
    "interloop.ml": (3, 25, "ml", OURS),
    "interloop.hu": (18, 45, "HU", OURS),
    "air.pockets": (1, 4, "count", OURS),
    "air.width_mm": (12, 55, "mm", OURS),
    "air.thickness_mm": (4, 14, "mm", OURS),
    "air.hu": (-990, -880, "HU", OURS),
    "air.bubbles": (0, 6, "count", OURS),
    "haemoperitoneum.p.low": _p(0.4),
    "haemoperitoneum.p.high": _p(0.75),
    "haemoperitoneum.amount.low": (0.05, 0.45, "share", OURS),
    "haemoperitoneum.amount.high": (0.2, 1.0, "share", OURS),
    "haemoperitoneum.hu": (
        28,
        48,
        "HU",
        "over 30 HU: Federle MP, Jeffrey RB, Radiology 1983;148:187-192",
    ),
    "haemoperitoneum.sentinel_p": _p(0.5, CLOT),
    "haemoperitoneum.sentinel_hu": (52, 72, "HU", CLOT),
    "haemoperitoneum.sentinel_mm": (15, 35, "mm", OURS),
}

LOOKALIKES: dict[str, Row] = {
    "cyst.rate.liver": _rate(0.3),
    "cyst.rate.spleen": _rate(0.08),
    "cyst.rate.kidney": _rate(0.3),
    "cyst.radius_mm": (3, 20, "mm", OURS),
    "cyst.hu": (-4, 18, "HU", "water; " + OURS),
    "tumour.rate": _rate(0.2),
    "tumour.count": (1, 5, "count", OURS),
    "tumour.radius_mm": (5, 20, "mm", OURS),
    "tumour.loss_hu": (20, 55, "HU", "below the organ, ring brighter; " + OURS),
    "haemangioma.p": _p(0.1),
    "haemangioma.radius_mm": (6, 18, "mm", OURS),
    "cleft.p": _p(0.3),
    "cleft.depth_mm": (10, 28, "mm", OURS),
    "cleft.width_mm": (1.5, 4.5, "mm", OURS),
    "ascites.p": _p(0.13),
    "ascites.amount": (0.05, 0.8, "share", OURS),
    "ascites.hu": (-2, 16, "HU", "transudate below 20 HU; " + OURS),
    "sparing.p": _p(0.5),
    "sparing.radius_mm": (8, 22, "mm", OURS),
    "focal_fat.p": _p(0.08),
    "focal_fat.loss_hu": (15, 45, "HU", OURS),
    "splenule.p": _p(0.12),
    "splenule.radius_mm": (4, 9, "mm", OURS),
    "periportal.p": _p(0.1),
    "periportal.hu": (15, 35, "HU", OURS),
    "periportal.reach_mm": (2, 5, "mm", OURS),
    "gallstone.p": _p(0.1),
    "gallstone.hu": (60, 700, "HU", OURS),
    "gallstone.radius_mm": (2, 8, "mm", OURS),
    "stent.p": _p(0.03),
    "stent.hu": (400, 1500, "HU", OURS),
    "clip.p": _p(0.08),
    "clip.count": (1, 5, "count", OURS),
    "clip.hu": (800, 3000, "HU", OURS),
    "hip_metal.p": _p(0.03),
    "collapsed.p": _p(0.3),
    "collapsed.length_mm": (25, 60, "mm", OURS),
    "dome.p": _p(0.12),
    "dome.shift_mm": (4, 12, "mm", OURS),
    "oral_blob.p": _p(0.1),
    "oral_blob.hu": (150, 600, "HU", OURS),
    "diverticula.p": _p(0.15),
    "diverticula.count": (3, 14, "count", OURS),
    "phlebolith.p": _p(0.25),
    "phlebolith.count": (1, 6, "count", OURS),
    "phlebolith.hu": (250, 700, "HU", OURS),
    "granuloma.p": _p(0.1),
    "granuloma.count": (1, 8, "count", OURS),
    "granuloma.hu": (250, 900, "HU", OURS),
    "mixing.p": _p(0.6, "unenhanced blood of the legs meets that of the kidneys; " + OURS),
    "mixing.loss_share": (0.2, 0.6, "share", OURS),
    "septa.p": _p(0.35, "bridging septa and oedema of the perirenal fat; " + OURS),
    "septa.hu": (25, 60, "HU", OURS),
    "misty.p": _p(0.1, "misty mesentery; " + OURS),
    "misty.hu": (15, 40, "HU", OURS),
}
