"""From a complete study to its verdict, whatever dies meanwhile.

workflow.Workflow   .start() .stop() .on_ready() .cancel() .again() .problem(): one a process
steps               claim, compute, commit: each may run twice
child, analysis     the warm process with the networks
queue               DBOS: durable steps, the queue itself
order               STAT, live, cohorts; who waits how long
heartbeat, identity which workers live, and what they are called
partial             what may be said while images are missing
control             cancel and again, for any process
cohort              retrospective studies by the thousand
worker              `triage worker`
"""
