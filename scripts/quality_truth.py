"""Truth for scripts/quality-report, read by eye from pictures of the test data."""

from __future__ import annotations

# Level of the vertebrae (T1 = 1, L1 = 13, S1 = 18) at heights in mm above the lowest slice, read
# from sagittal and coronal pictures: (height, level). The discs of both whole abdomens were read
# again with a scale of millimetres beside the picture.
LEVELS: dict[str, tuple[tuple[float, float], ...]] = {
    "portal_abdomen_dicom": (
        *((156, 18), (189, 17), (222, 16), (254, 15), (286, 14), (316, 13), (346, 12)),
    ),
    "portal_slab_dicom": ((10, 12), (36, 11)),
    "portal_abdomen_b.nii.gz": (
        *((140, 18), (169, 17), (201, 16), (233, 15), (263, 14), (293, 13), (323, 12)),
        *((350, 11), (375, 10), (400, 9)),
    ),
}

# Slices of rsna2023/train_images in the order of series folders (sorted) and instance numbers; one
# letter a slice: c chest, a abdomen, p pelvis, t thigh, x between two (not counted), - not read.
SLICES = """
cppp pppx ccaaaaap ccaaaaaaappppt- cccc caaa cccc ccaaaaaaa caaaappx caaappppxt aaaaaaa
cccaaaaaaap ccxaaaaaaapppt aaaappptt ccccxaaaaaappp--- cppp cccc caaaaaapptt ccccccccaaaa
ccccaaaax cccxxpxx xaaaappxt caapp cccaaaaaaa cppt caaa ccaaaaaa caaaaaaa caaaaaaa caaaaaaa
cccaaaaaaaaa cccccccc cccccccc aaaaaaaaaaaa aaaxppppp aaaaaaaaaa ccccccccaaaa caaaaaaaappt
caaaaappxxt ccccccccxxa aaaappxt caaaaapxtt cccxaaaa caaaaaaapp aaaaaa caappp caaaaaaxppxx
caaaaxpppxx ccccaaaap aaaaapppp cccaapxttt caapxt ccaaaaaapppptt xcaaaaaaaaa caaaaxpppp cppxt
aaaap cccaaaaxppppxx- cccaaaaaaxpppp- ccccaaaaaaaaxp----
"""

# Phase of the real CTs, from their descriptions.
PHASES: dict[str, str] = {
    "portal_abdomen_dicom": "portal_venous",
    "portal_slab_dicom": "portal_venous",
    "plain_trunk_3mm.nii.gz": "plain",
    "portal_abdomen_b.nii.gz": "portal_venous",
}
