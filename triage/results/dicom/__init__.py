"""A report as DICOM objects of the original study, along IHE AI Results (AIR).

    source    headers that passed the gate -> what the objects are about
    maps      NIfTI of the report -> the scanner's own slices
    structured, captures, parametric, segments, keys    one kind of object each
    build     all of them, for one report folder

Everything comes from the gate's cleaned headers and from our own files; no source file is copied.
Each object says "Research use only - not for clinical use".
"""
