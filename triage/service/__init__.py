"""The HTTP service: uploads in, reports out. It calls one function, `pipeline.analyse`."""
