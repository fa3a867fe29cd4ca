"""Watches whether what comes in, and what is answered, still looks as it did.

records.drift    figures of each live study, and the warnings (SQL)
assess           the newest studies against two references: the bundle's and our own first weeks
watch            looks every few minutes; a warning begins, a warning ends
"""
