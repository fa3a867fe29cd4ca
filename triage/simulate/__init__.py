"""Virtual trauma patients: anatomy, contrast, injuries, look-alikes, scanner, DICOM."""
