"""PriceCalculation: turns a model and a tariff into a price. Owns no data: every answer can be computed again.

Reads `pricing.requests.quick` and `pricing.requests.heavy`, writes `pricing.results`.
`stl` reads files, `mesh` measures them, `sandbox` does both where a hostile file can hurt nobody, `measure` remembers
and scales what was measured, `domain` prices it.
"""
