"""Orders from elsewhere: HL7 v2 over MLLP and FHIR ServiceRequest, compared with the images."""
