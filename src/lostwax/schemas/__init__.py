"""The contracts' paper trail: what `contracts` and each service's `api` say, written out for people and other programs.

`schemas/` at the root of the project holds what `folder.documents` makes (JSON Schemas of the events, one AsyncAPI
file, one OpenAPI file for each service) and, beside them, `examples/`: messages as producers once wrote them, which
are kept for ever. `compatibility` says which change of a schema breaks somebody. Nothing here runs in a service.
"""
