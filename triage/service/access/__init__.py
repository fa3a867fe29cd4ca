"""Who may see what, and a record of it.

    principal.Who             who asks: a FastAPI dependency for routes
    rights                    one table: name of a route -> roles
    guard                     decides for each request; every route passes it
    users, sessions, tokens   what is known about people and programs, all secrets hashed
    attempts                  guessing is made slow
    audit                     what was done and by whom, append-only and hash-chained
    fhir, syslog, shipping    the same as FHIR AuditEvent, to files and to a log server over TLS
    masking                   patient fields, hidden on request
    bind                      which addresses the service may listen on

Without any user, the loopback address needs no login: whoever has this machine is `local`.
"""
