"""The service: images in, verdicts out, whatever dies meanwhile.

service.Service     everything below, started and stopped together
app, server, api/   HTTP: routes, models, errors (`errors`), the boundary that each request passes
events, metrics     what happens, as it happens; Prometheus
intake/             DICOM receiver, STOW-RS, uploads, watched folder, PACS; completeness
images/             files on disk
records/            the database
workflow/           durable queue, warm child, workers, cohorts
volumes             a series as NIfTI on demand
"""
